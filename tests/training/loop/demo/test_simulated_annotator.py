import json
from pathlib import Path
from typing import Any

import pytest

from training.loop.demo import simulated_annotator
from training.loop.demo.simulated_annotator import annotate, judge, parts, rank, utility, win

CUSTOMER = "My kettle came with a dent in the side. What can I do?"
GOOD = "I am sorry about the dent in your kettle. Please send us a photo, and we will send you a new one this week."
CURT = "You can return it."
CUT_OFF = "I am sorry about the dent in your kettle. Please send us a photo, and we will send you a"
AS_CUSTOMER = "I ordered a kettle last week and my order has not arrived. I am sorry about the dent. Please send it."
COMPLETIONS = {"a": CURT, "b": GOOD, "c": CUT_OFF, "d": AS_CUSTOMER}
TASK = {
    "id": "t1",
    "kind": "ranking",
    "prompt": [{"role": "system", "content": "Be polite."}, {"role": "user", "content": CUSTOMER}],
    "completions": [{"key": key, "content": text} for key, text in COMPLETIONS.items()],
    "form": {},
}


@pytest.mark.parametrize(
    "worse",
    [
        CURT,
        CUT_OFF,
        AS_CUSTOMER,
        CUSTOMER,
        "I am sorry.",
        GOOD + " Best regards, [Your Name]",
        " ".join([GOOD] * 5),
        GOOD + " As an AI language model I cannot do this.",
        GOOD + " Kettles have a long history, and people have used them everywhere in the world for tea." * 4,
    ],
)
def test_the_better_reply_has_the_higher_utility(worse: str) -> None:
    assert utility(GOOD, CUSTOMER) > utility(worse, CUSTOMER)


def test_an_apology_does_not_suit_a_customer_who_praises_us() -> None:
    assert parts("We are sorry to hear that.", "Your tent is brilliant!")["courteous"] == 0
    assert parts("Thank you for telling us.", "Your tent is brilliant!")["courteous"] > 0


def test_an_empty_reply_can_be_judged() -> None:
    assert utility("", CUSTOMER) < utility(CURT, CUSTOMER)


def test_every_completion_is_ranked_once_whatever_the_order_shown() -> None:
    first = rank(COMPLETIONS, customer=CUSTOMER, annotator_seed=1, task_id="t1")
    second = rank(dict(reversed(COMPLETIONS.items())), customer=CUSTOMER, annotator_seed=1, task_id="t1")
    assert first == second
    assert sorted(key for group in first for key in group) == ["a", "b", "c", "d"]


def test_equal_texts_are_tied() -> None:
    texts = {"a": GOOD, "b": CURT, "c": GOOD}
    for seed in range(20):
        assert ["a", "c"] in rank(texts, customer=CUSTOMER, annotator_seed=seed, task_id="t1")


def test_a_form_without_ties_gets_none() -> None:
    same = [{"key": key, "content": GOOD} for key in "abc"]
    assert len(judge(TASK | {"completions": same}, annotator_seed=1)["ranking"]) == 1
    assert len(judge(TASK | {"completions": same, "form": {"ties": False}}, annotator_seed=1)["ranking"]) == 3


def test_wins_follow_bradley_terry() -> None:
    temperature = 2.0
    gap = utility(GOOD, CUSTOMER) - utility(CUT_OFF, CUSTOMER)
    n = 4000
    wins = sum(
        win(GOOD, CUT_OFF, customer=CUSTOMER, annotator_seed=seed, task_id="t1", temperature=temperature)
        for seed in range(n)
    )
    expected = 1 / (1 + 2.718281828 ** (-gap / temperature))
    assert wins / n == pytest.approx(expected, abs=4 * (0.25 / n) ** 0.5)


def test_two_annotators_differ_and_one_repeats_itself() -> None:
    judgements = [judge(TASK, annotator_seed=seed, temperature=2.0) for seed in range(20)]
    assert judgements[3] == judge(TASK, annotator_seed=3, temperature=2.0)
    assert len({json.dumps(judgement["ranking"]) for judgement in judgements}) > 1
    assert all(3 < judgement["seconds"] < 200 for judgement in judgements)


class OneProject:
    """Stands in for the client: hands out `n` tasks."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.submitted: list[dict[str, Any]] = []

    def lease(self, slug: str) -> dict[str, Any] | None:
        if not self.left:
            return None
        self.left -= 1
        return {"id": str(self.left), "task": TASK | {"id": str(self.left)}}

    def submit(self, lease_id: str, judgement: dict[str, Any], next: bool) -> dict[str, Any]:
        self.submitted.append(judgement)
        return {"id": lease_id} | ({"next_lease": self.lease("")} if next else {})


@pytest.mark.parametrize(("count", "done", "left"), [(None, 5, 0), (3, 3, 2), (0, 0, 5), (9, 5, 0)])
def test_the_annotator_stops_at_its_count_or_when_no_task_is_left_and_holds_no_lease(
    count: int | None, done: int, left: int
) -> None:
    project = OneProject(5)
    assert annotate(project, "larkfell", annotator_seed=1, count=count) == done
    assert len(project.submitted) == done
    assert project.left == left


def test_prompts_of_the_demo_are_split_and_free_of_near_duplicates() -> None:
    path = Path(simulated_annotator.__file__).with_name("prompts.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tags = [row["tags"][-1] for row in rows]
    assert tags.count("train") >= 80 and tags.count("heldout") >= 60
    assert len({row["id"] for row in rows}) == len(rows)
    words = [
        set(simulated_annotator._words(" ".join(m["content"] for m in row["prompt"] if m["role"] == "user")))
        for row in rows
    ]
    for i, first in enumerate(words):
        for j, second in enumerate(words[:i]):
            overlap = len(first & second) / len(first | second)
            assert overlap < 0.5, (rows[i]["id"], rows[j]["id"])
