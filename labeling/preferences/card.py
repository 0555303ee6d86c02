"""The card of a snapshot: Markdown with a head in YAML, as the Hugging Face hub reads it beside the files."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import yaml

from labeling.preferences.figures import figures_of_snapshot
from labeling.preferences.filters import DEFAULT_FILTERS, DEFAULT_POLICY, FILTERS, POLICY, in_words
from labeling.preferences.models import Snapshot
from labeling.preferences.services import SPLITS
from labeling.preferences.views_of_snapshots import VIEWS, rows_in
from labeling.preferences.withdrawal import withdrawn_rows_in
from labeling.projects.models import Guideline
from labeling.projects.text import sha256

FEW_PAIRS, FEW_TO_EVALUATE = 500, 100
MOST_ROWS = 20
LEAST_SHARE_OF_LANGUAGE = 0.05
KINDS = {
    "human": ("person", "people"), "imported": ("annotator of imported data", "annotators of imported data"),
    "simulated": ("simulated annotator (a program)", "simulated annotators (programs)"),
    "model": ("model as judge", "models as judges"),
}  # fmt: skip
NOT_PEOPLE = ("simulated", "model")
# Names of licences on the hub, by theirs in small letters.
LICENCES = (
    "apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "odbl", "odc-by", "pddl",
    "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "agpl-3.0", "openrail", "cdla-permissive-2.0",
)  # fmt: skip
# Languages that importers name in tags, by name or code.
LANGUAGES = {
    "arabic": "ar", "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr", "german": "de", "italian": "it",
    "japanese": "ja", "korean": "ko", "polish": "pl", "portuguese": "pt", "russian": "ru", "spanish": "es",
    "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi",
}  # fmt: skip
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))


def card_of(
    snapshot: Snapshot, *, address: str = "", kind: str = "parquet", views: Collection[str] | None = None
) -> str:
    """The whole card. `address` is where the REST API is, for how to load it; `kind` and `views` (default: all) are of
    the files that lie beside it.

    Raises BeingMade where somebody else is counting what it says.
    """
    figures = figures_of_snapshot(snapshot)
    head = yaml.safe_dump(_head(snapshot, figures, kind, views), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [
        _about(snapshot, figures), _counts(snapshot, figures), _collected(snapshot, figures), _agreement(figures),
        _sources(snapshot, figures), _choices(snapshot), _limits(snapshot, figures), _hashes(snapshot), _loading(snapshot, address),
    ]  # fmt: skip
    return f"---\n{head}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def body_of(card: str) -> str:
    """A card without its head."""
    return card.split("\n---\n", 1)[1].lstrip()


# --- the head -----------------------------------------------------------------------------------
def _head(snapshot: Snapshot, figures: dict[str, Any], kind: str, views: Collection[str] | None) -> dict[str, Any]:
    head: dict[str, Any] = {"pretty_name": f"{_line(snapshot.project.name)}, snapshot {snapshot.number}"}
    head |= _licence(figures["licences"])
    if languages := _languages(figures):
        head["language"] = languages
    n = max(snapshot.n_pairs, snapshot.n_judgements)
    head |= {
        "task_categories": ["text-generation"],
        "size_categories": [next((name for most, name in SIZES if n < most), "10M<n<100M")],
        "tags": ["preference", "human-feedback" if _by_people(figures) else "synthetic", "rlhf", "prefloop"],
        "configs": [
            {
                "config_name": view,
                "data_files": [{"split": split, "path": f"{view}/{split}.{kind}"} for split in splits],
                **({"default": True} if view == "preference" else {}),
            }
            for view, splits in views_with_rows(snapshot, kind).items()
            if views is None or view in views
        ],
    }
    return head


def views_with_rows(snapshot: Snapshot, kind: str) -> dict[str, list[str]]:
    """The views that come as files of this kind, each with its splits that aren't known to be empty."""
    splits = {
        view: [split for split in SPLITS if rows_in(snapshot, view, split) != 0]
        for view, known in VIEWS.items()
        if kind in known.kinds
    }
    return {view: found for view, found in splits.items() if found}


def _licence(licences: Mapping[str, int]) -> dict[str, Any]:
    known = sorted({name.strip().lower().replace(" ", "-") for name in licences})
    if not known or "unknown" in known:
        return {"license": "unknown"}
    if set(known) <= set(LICENCES):
        return {"license": known[0] if len(known) == 1 else known}
    return {"license": "other", "license_name": _line(" and ".join(sorted(licences)))[:200]}


def _languages(figures: dict[str, Any]) -> list[str]:
    codes = {**LANGUAGES, **{code: code for code in LANGUAGES.values()}}
    least = LEAST_SHARE_OF_LANGUAGE * figures["n_prompts"]
    return sorted({codes[tag] for tag, n in figures["tags"].items() if tag in codes and n >= least})


def _by_people(figures: dict[str, Any]) -> bool:
    return any(kind not in NOT_PEOPLE for kind in figures["annotators_by_kind"])


# --- the text -----------------------------------------------------------------------------------
def _about(snapshot: Snapshot, figures: dict[str, Any]) -> str:
    by = [f"{_n(n)} {KINDS[kind][n != 1]}" for kind, n in figures["annotators_by_kind"].items()]
    lines = [
        f"# {_plain(snapshot.project.name)}, snapshot {snapshot.number}",
        f"{_n(snapshot.n_pairs)} preference pairs of {_n(snapshot.n_judgements)} judgements on {_n(figures['n_prompts'])} "
        f"prompts, by {_listed(by)}; frozen {snapshot.created_at:%Y-%m-%d}. It never changes: its name is the hash of its rows.",
    ]
    simulated = _share_by_machines(snapshot)
    if simulated:
        lines.append(f"**{simulated:.0%} of the judgements were not made by people**, but by programs or models.")
    if snapshot.project.description:
        lines.append("> " + _plain(snapshot.project.description)[:2000])
    return "\n\n".join(lines)


def _counts(snapshot: Snapshot, figures: dict[str, Any]) -> str:
    manifest, files = snapshot.manifest, snapshot.manifest["files"]
    rows = [
        (split, *(_n(n) for n in (
            manifest["n_groups"][split], files[f"votes.{split}.jsonl"]["rows"], files[f"pairs.{split}.jsonl"]["rows"],
        )))
        for split in SPLITS
    ]  # fmt: skip
    by_kind = figures["annotators_by_kind"]
    kinds = [(KINDS[kind][1], _n(by_kind[kind]), _n(n)) for kind, n in manifest["annotator_kinds"].items()]
    share = manifest.get("eval_share")
    return "\n\n".join(
        [
            "## What is in it",
            _table(("split", "prompt groups", "judgements", "pairs"), rows, "lrrr"),
            f"All pairs of one prompt, and of prompts nearly alike, are in one split; {share:.0%} of the groups are kept "
            "for evaluation, by a fixed function of the group.",
            _table(("judged by", "how many", "judgements"), kinds, "lrr"),
        ]
    )


def _collected(snapshot: Snapshot, figures: dict[str, Any]) -> str:
    sizes = ", ".join(f"{n} ({_n(count)} tasks)" for n, count in figures["completions_a_task"].items())
    votes = ", ".join(f"{n} ({_n(count)} tasks)" for n, count in figures["votes_a_task"].items())
    facts = [
        f"- Judged from {figures['first_at'][:10]} to {figures['last_at'][:10]}.",
        f"- Completions in a task: {sizes}. Judgements of a task: {votes}.",
        "- On this site, completions are shown in an order that is random for each person and kept with the judgement "
        "(`order_shown`), and never with the model that wrote them. Of imported judgements the order is as their source says.",
    ]
    manifest = snapshot.manifest
    if n := manifest.get("n_adjudicated_tasks"):
        facts.append(f"- Reviewers settled {_n(n)} tasks; their ranking decides {_n(manifest.get('n_adjudicated_pairs', 0))} pairs.")
    if n := manifest.get("n_unfit_tasks"):
        facts.append(f"- {_n(n)} tasks that reviewers found unfit are left out.")
    versions = Guideline.objects.filter(project=snapshot.project_id, version__in=manifest.get("guideline_versions", []))
    rows = [
        (str(one.version), f"{one.created_at:%Y-%m-%d}", f"`{sha256(one.markdown)[:16]}…`")
        for one in versions.order_by("version")
    ]
    guideline = _table(("guideline", "published", "SHA-256 of its text"), rows, "lll") if rows else "No guideline was shown."
    models = _table(("completions by", "how many"), _most(figures["completions_by_model"]), "lr")
    return "\n\n".join(["## How it was collected", "\n".join(facts), guideline, "### Who wrote the completions", models])


def _agreement(figures: dict[str, Any]) -> str:
    rows = []
    both = (("agreement", "all annotators"), ("agreement_of_people", "people alone"))
    for name, words in both if set(figures["annotators_by_kind"]) & set(NOT_PEOPLE) else both[:1]:
        rows += [
            (f"pairs on which two say the same, {words}", _figure(figures[name]["pairwise_raw"])),
            (f"Krippendorff’s alpha, nominal, {words}", _figure(figures[name]["krippendorff_alpha_symmetric"])),
        ]
    rows.append(("first place over chance of the completion shown first", _figure(figures["position_bias"])))
    return "## Agreement\n\n" + _table(("figure of these judgements", "value, 95 % interval, n"), rows, "ll")


def _sources(snapshot: Snapshot, figures: dict[str, Any]) -> str:
    return "\n\n".join(
        [
            "## Sources and licences",
            _table(("source of prompts", "prompts"), _most(figures["sources"]), "lr"),
            _table(("licence of prompts", "prompts"), _most(figures["licences"]), "lr"),
        ]
    )


def _choices(snapshot: Snapshot) -> str:
    chosen, policy = [], []
    for name, part in FILTERS.items():
        value = snapshot.filters.get(name, DEFAULT_FILTERS[name])
        if value not in ([], None) and (name == "purposes" or value != DEFAULT_FILTERS[name]):
            chosen.append(f"- {part.says}: {_plain(in_words(value))} (`{name}`)")
    for name, part in POLICY.items():
        value = snapshot.policy.get(name, DEFAULT_POLICY[name])
        policy.append(f"- {part.says}: {_plain(in_words(value, part.choices))} (`{name}`)")
    return "\n".join(["## What was chosen", "", "Filters:", "", *(chosen or ["- none"]), "", "What the trainer sees:", "", *policy])


def _limits(snapshot: Snapshot, figures: dict[str, Any]) -> str:
    found = list(known_limits(snapshot, figures))
    return "## Known limits\n\n" + "\n".join(f"- {text}" for text in found or ["None that counting shows."])


def known_limits(snapshot: Snapshot, figures: dict[str, Any]) -> Iterable[str]:
    """What speaks against relying on it, as far as counting can tell."""
    if held := withdrawn_rows_in([snapshot]).get(snapshot.pk):
        yield f"**It holds rows that were withdrawn since: {held}.** Freeze again before you train on it."
    if snapshot.n_pairs < FEW_PAIRS:
        yield f"It is small: {_n(snapshot.n_pairs)} pairs."
    n_eval = snapshot.manifest["files"]["pairs.eval.jsonl"]["rows"]
    if n_eval < FEW_TO_EVALUATE:
        yield f"{_n(n_eval)} pairs to evaluate on: intervals are wide."
    if share := _share_by_machines(snapshot):
        yield f"{share:.0%} of the judgements are by simulated annotators or models, not by people."
    if figures["n_annotators"] == 1:
        yield "One annotator alone: it holds one person’s taste." if _by_people(figures) else "One annotator alone, and no person."
    elif figures["largest_share"] > 0.5:
        yield f"One annotator gave {figures['largest_share']:.0%} of the judgements."
    if figures["agreement"]["pairwise_raw"]["value"] is None:
        yield "Nothing was judged twice, so nobody knows how far people agree."
    bias = figures["position_bias"]
    if bias["value"] is not None and (bias["low"] > 0 or bias["high"] < 0):
        way = "more" if bias["value"] > 0 else "less"
        yield f"Position bias: what was shown first won {way} often than by chance, {_figure(bias)}."
    if (n := figures["n_prompts"] - figures["n_groups"]) > 0:
        yield f"{_n(n)} of {_n(figures['n_prompts'])} prompts are near-duplicates of others; a group is never split."
    if n := figures["licences"].get("unknown", 0):
        yield f"The licence of {_n(n)} prompts is unknown."
    models = [model for model in figures["completions_by_model"] if model not in ("unknown", "an annotator")]
    if len(models) == 1 and len(figures["completions_by_model"]) == 1:
        yield f"One model wrote every completion: {_plain(models[0])}."


def _share_by_machines(snapshot: Snapshot) -> float:
    kinds = snapshot.manifest["annotator_kinds"]
    return sum(kinds.get(kind, 0) for kind in NOT_PEOPLE) / max(1, sum(kinds.values()))


def _hashes(snapshot: Snapshot) -> str:
    files = snapshot.manifest["files"]
    rows = [(f"`{name}`", _n(file["rows"]), f"`{file['sha256']}`") for name, file in files.items()]
    return "\n\n".join(
        [
            "## Hashes",
            f"SHA-256 of the snapshot: `{snapshot.content_hash}`. Of its frozen files:",
            _table(("file", "rows", "SHA-256"), rows, "lrl"),
        ]
    )


def _loading(snapshot: Snapshot, address: str) -> str:
    by_rest = f"""
Or from the site that froze it, with an API token:

```python
dataset = load_dataset(
    "parquet",
    data_files={{split: f"{address}snapshots/{snapshot.pk}/{{split}}.parquet?view=preference" for split in ("train", "eval")}},
    storage_options={{"headers": {{"Authorization": "Bearer …"}}}},
)
```"""
    return f"""## Loading it

From a folder with this card and the files, as `export_snapshot` writes it:

```python
from datasets import load_dataset

dataset = load_dataset("path/to/the/folder", "preference")  # or another view: "sft", "unpaired", "pairs", "votes", ...
```
{by_rest if address else ""}

The columns of `preference`, `unpaired` and `sft` are TRL's:

```python
from trl import DPOConfig, DPOTrainer

trainer = DPOTrainer(
    model="…", args=DPOConfig(output_dir="dpo"), train_dataset=dataset["train"], eval_dataset=dataset["eval"]
)
trainer.train()
```"""


# --- writing ------------------------------------------------------------------------------------
def _n(number: int) -> str:
    return f"{number:,}"


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return str(figure["method"])
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f}, n {figure['n']:,})".replace("-", "−")


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _most(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """The most frequent, and the rest in one row."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(_plain(name), _n(n)) for name, n in ordered[:MOST_ROWS]]
    if rest := ordered[MOST_ROWS:]:
        rows.append((f"{_n(len(rest))} others", _n(sum(n for _, n in rest))))
    return rows or [("none", "0")]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], sides: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in sides]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, tuple(rule), *rows))


def _plain(text: Any) -> str:
    """Somebody's text as one line that Markdown and its tables leave as it is."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!~" else char for char in _line(str(text)))


def _line(text: str) -> str:
    return " ".join(text.split())
