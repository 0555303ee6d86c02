"""Records for Argilla's SDK 2.x, one a task, and the settings of the dataset they belong to.

    settings = rg.Settings.from_json("settings.json")
    dataset = rg.Dataset("support", settings=settings).create()
    dataset.records.from_json("train.json")

A user of Argilla has a UUID: each annotator's is made of the pseudonym (`user_id_of`), and who is who stands in the
metadata of the record. What a response has no place for (seconds, the order shown, time, guideline) is there too.
Scales of ratings outside 0 to 10 become labels. What is lost: comments on marks, since spans have none, and who wrote
a completion that a person wrote. Names of questions are small letters, so names of axes come back as such.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import orjson

from labeling.preferences.models import Snapshot
from labeling.preferences.views_out.asked import Asked, asked_in
from labeling.preferences.views_out.columns import Row, as_text
from labeling.preferences.views_out.rankings import agreement, consensus
from labeling.preferences.views_out.tasks import with_origins
from labeling.preferences.views_out.view import OF_RECORDS, View

NAMESPACE = uuid.UUID("5f0e1b0a-7c0e-5d8c-9b53-0f6f0b1a8e11")
LEAST_RATING, MOST_RATING = 0, 10
YES, NO = "yes", "no"


def user_id_of(pseudonym: str) -> str:
    return str(uuid.uuid5(NAMESPACE, pseudonym))


def records(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    asked = asked_in(snapshot)
    for votes, origin in with_origins(snapshot, rows):
        yield _record(asked, votes, origin)


def _record(asked: Asked, votes: list[Row], origin: Row) -> Row:
    task = votes[0]
    responses: dict[str, list[Row]] = {}
    for vote in votes:
        for question, value in _answers(asked, vote):
            answer = {"value": value, "user_id": user_id_of(vote["annotator"]), "status": "submitted"}
            responses.setdefault(question, []).append(answer)
    metadata = {
        "iteration": task["iteration"],
        "gold": YES if task["gold"] else NO,
        "judgements": as_text([_about(vote) for vote in votes]),
        "models": as_text({item["key"]: item["model"] for item in task["completions"]}),
        **{key: value for key, value in origin.items() if value is not None},
    }
    suggestions = {}
    ranking, _ = consensus(votes)
    if ranking:
        metadata["agreement"] = agreement(votes, ranking)
        by_people = all(vote["annotator_kind"] == "human" for vote in votes)
        suggestions[_ranking_name(asked, len(task["completions"]))] = {
            "value": _ranked(ranking), "score": metadata["agreement"], "agent": "consensus",
            "type": "human" if by_people else "model",
        }  # fmt: skip
    return {
        "id": task["task"],
        "fields": {"prompt": task["prompt"], **{item["key"]: item["content"] for item in task["completions"]}},
        "metadata": metadata,
        "suggestions": suggestions,
        "responses": responses,
        "vectors": {},
        "status": "completed",
        "_server_id": None,
    }


def _about(vote: Row) -> Row:
    said = {key: vote[key] for key in ("annotator", "annotator_kind", "order_shown", "guideline_version", "at")}
    return said | {"user_id": user_id_of(vote["annotator"]), "seconds": vote["judgement"].get("seconds")}


def _answers(asked: Asked, vote: Row) -> Iterator[tuple[str, Any]]:
    """(question, value) of all that one judgement says."""
    judgement = vote["judgement"]
    if judgement.get("ranking"):
        yield _ranking_name(asked, len(vote["completions"])), _ranked(judgement["ranking"])
    if "strength" in judgement:
        yield "strength", judgement["strength"]
    for key, given in judgement.get("ratings", {}).items():
        for axis, value in given.items():
            yield f"{asked.name_of(axis)}_{key}", value if _is_rating(asked, axis) else str(value)
    for key, accepted in judgement.get("acceptable", {}).items():
        yield f"acceptable_{key}", YES if accepted else NO
    for key, flags in judgement.get("flags", {}).items():
        if flags:
            yield f"flags_{key}", flags
    for key, text in judgement.get("corrections", {}).items():
        yield f"correction_{key}", text
    for key, marks in judgement.get("marks", {}).items():
        if marks:
            spans = [{"start": mark["start"], "end": mark["end"], "label": mark["label"]} for mark in marks]
            yield f"marks_{key}", spans
    if judgement.get("none_acceptable"):
        yield "none_acceptable", YES
    for part in ("demonstration", "rationale"):
        if judgement.get(part):
            yield part, judgement[part]


def _ranking_name(asked: Asked, n_completions: int) -> str:
    """A question ranks the same options in every record: tasks of different sizes have one each."""
    return "ranking" if len(asked.sizes) == 1 else f"ranking_{n_completions}"


def _ranked(ranking: list[list[str]]) -> list[Row]:
    return [{"value": key, "rank": place} for place, group in enumerate(ranking, 1) for key in group]


def _is_rating(asked: Asked, axis: str) -> bool:
    low, high = asked.axes[axis]
    return low >= LEAST_RATING and high <= MOST_RATING


def settings(snapshot: Snapshot) -> bytes:
    """What `Settings.from_json` reads."""
    asked = asked_in(snapshot)
    guideline = snapshot.project.guidelines.order_by("-version").first()
    required = next(iter(asked.sizes), 0) if len(asked.sizes) == 1 else 0
    fields = [_field("prompt", "Prompt", "chat", required=True)]
    fields += [_field(key, f"Completion {key.upper()}", "text", required=bool(required)) for key in asked.keys]
    return orjson.dumps(
        {
            "guidelines": guideline.markdown if guideline else None,
            "fields": fields,
            "questions": list(_questions(asked)),
            "vectors": [],
            "metadata": [
                _metadata("iteration", "integer"), _metadata("agreement", "float"), _metadata("licence", "terms"),
                _metadata("gold", "terms", visible=False),
            ],
            "allow_extra_metadata": True,
            "distribution": {"strategy": "overlap", "min_submitted": 1},
            "mapping": None,
        },
        option=orjson.OPT_INDENT_2,
    )  # fmt: skip


def _questions(asked: Asked) -> Iterator[Row]:
    for size in asked.ranked_sizes:
        options = [{"value": key, "text": f"Completion {key.upper()}", "description": None} for key in asked.keys[:size]]
        title = "Which is better?" if len(asked.sizes) == 1 else f"Which of {size} is better?"
        required = len(asked.sizes) == 1
        yield _question(_ranking_name(asked, size), title, "ranking", options=options, required=required)
    if "strength" in asked.parts:
        yield _question("strength", "How much better is the best?", "rating", options=_steps(1, 3))
    for key in asked.keys:
        of = f"completion {key.upper()}"
        for axis, (low, high) in asked.axes.items():
            name, title = f"{asked.name_of(axis)}_{key}", f"{axis}: {of}"
            if _is_rating(asked, axis):
                yield _question(name, title, "rating", options=_steps(low, high))
            else:
                yield _question(name, title, "label_selection", options=_labels(map(str, range(low, high + 1))))
        if "acceptable" in asked.parts:
            yield _question(f"acceptable_{key}", f"Acceptable? {of}", "label_selection", options=_labels((YES, NO)))
        if asked.flags:
            yield _question(f"flags_{key}", f"Flags of {of}", "multi_label_selection", options=_labels(asked.flags))
        if "corrections" in asked.parts:
            yield _question(f"correction_{key}", f"A better text than {of}", "text")
        if asked.marks:
            rest = {"options": _labels(asked.marks), "field": key, "allow_overlapping": True}
            yield _question(f"marks_{key}", f"Marks in {of}", "span", **rest)
    if "none_acceptable" in asked.parts:
        yield _question("none_acceptable", "Is none of them good?", "label_selection", options=_labels((YES, NO)))
    if "demonstration" in asked.parts:
        yield _question("demonstration", "The completion that you would want", "text")
    if "rationale" in asked.parts:
        yield _question("rationale", "Why?", "text")


def _question(name: str, title: str, type: str, *, required: bool = False, **settings: Any) -> Row:
    return {
        "name": name, "title": title, "description": None, "required": required, "settings": {"type": type, **settings},
    }  # fmt: skip


def _steps(low: int, high: int) -> list[Row]:
    return [{"value": step} for step in range(low, high + 1)]


def _labels(names: Any) -> list[Row]:
    return [{"value": name, "text": name, "description": None} for name in names]


def _field(name: str, title: str, type: str, *, required: bool) -> Row:
    return {
        "name": name, "title": title, "required": required, "settings": {"type": type, "use_markdown": True},
    }  # fmt: skip


def _metadata(name: str, type: str, *, visible: bool = True) -> Row:
    return {"name": name, "title": name, "visible_for_annotators": visible, "settings": {"type": type}}


ARGILLA = View(
    "records for Argilla's SDK 2.x, and the settings of their dataset",
    frozen="votes",
    rows=records,
    kinds=OF_RECORDS,
    beside={"settings.json": settings},
)
