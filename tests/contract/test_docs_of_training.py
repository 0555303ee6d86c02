"""The page on training names what there is."""

import re

from labeling.preferences.views_of_snapshots import VIEWS
from labeling.web.docs import FOLDER
from training.runs.catalogue import KINDS

PAGE = (FOLDER / "training.md").read_text(encoding="utf-8")


def rows_of_table(heading: str) -> list[list[str]]:
    """Cells of the table whose first row begins so, but for its head."""
    [found] = re.findall(rf"^\| {heading} \|.*\n\|[ -|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]


def test_every_kind_of_run_is_on_the_page() -> None:
    assert {name for row in rows_of_table("kind") for name in re.findall(r"`(\w+)`", row[0])} == set(KINDS)


def test_each_kind_learns_from_the_view_that_the_page_says() -> None:
    for _, kinds, view in rows_of_table("what was collected"):
        view = view.strip("`")
        assert view in VIEWS
        for name in re.findall(r"`(\w+)`", kinds):
            views = {KINDS[name].view, *KINDS[name].view_by_labels.values()}
            assert view in views | ({"preference_by_axis"} if "axes" in KINDS[name].options else set()), name


def test_options_on_the_page_are_there() -> None:
    for kind, heading in (("sft", "SFT"), ("kto", "KTO"), ("distill", "Distillation"), ("evaluate", "Evaluation")):
        section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
        named = {name.split(":")[0] for name in re.findall(r"`(\w+(?:: \w+)?)`", section)}
        values = {choice for option in KINDS[kind].options.values() for choice in option.choices}
        results = {"loss", "loss_change", "n_train_dropped", "n_train_even", "kl", "reward", "win_rate", "distill", "evaluate", "_2"}
        assert named - set(KINDS[kind].options) - values - results == set()
