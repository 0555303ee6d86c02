"""Tasks with annotations for Label Studio, in its full JSON, and the labelling configuration they belong to.

Two completions without a tie are a `Pairwise`; else completions are ranked in a `Ranker` whose buckets are the places,
"1" the best, so that ties share one. Annotations have no `completed_by`, since Label Studio refuses to import users whom
it does not know: who gave them stands in the task's data, by the annotation's `unique_id`. What is lost: who wrote a
completion that a person wrote. Names of controls are small letters, so names of axes come back as such.
"""

import uuid
from collections.abc import Iterator
from itertools import count
from typing import Any
from xml.etree import ElementTree

from labeling.preferences.models import Snapshot
from labeling.preferences.views_out.asked import Asked, asked_in
from labeling.preferences.views_out.columns import Row
from labeling.preferences.views_out.tasks import with_origins
from labeling.preferences.views_out.view import OF_RECORDS, View

NAMESPACE = uuid.UUID("0c2f7f5e-8f0b-5a37-8b1c-3f5a6f0d9c42")
STARS = range(1, 11)  # scales that a Rating holds; others are a Number
YES, NO = "yes", "no"


def tasks(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    asked = asked_in(snapshot)
    numbers = count(1)
    for number, (votes, origin) in enumerate(with_origins(snapshot, rows), 1):
        task = votes[0]
        contents = {item["key"]: item["content"] for item in task["completions"]}
        data = {
            "task": task["task"],
            "messages": task["prompt"],
            # The configuration shows the completions of the largest task, and each must be there.
            **{key: contents.get(key, "") for key in asked.keys},
            "models": {item["key"]: item["model"] for item in task["completions"]},
            "judgements": [_about(vote) for vote in votes],
            "iteration": task["iteration"],
            "gold": task["gold"],
            **origin,
        }
        if not _is_pairwise(asked):
            data["answers"] = [
                {"id": item["key"], "title": f"Completion {item['key'].upper()}", "body": item["content"], "model": item["model"]}
                for item in task["completions"]
            ]
        annotations = [_annotation(asked, vote, contents) | {"id": next(numbers), "task": number} for vote in votes]
        yield {"id": number, "data": data, "annotations": annotations, "predictions": []}


def _is_pairwise(asked: Asked) -> bool:
    return asked.sizes == [2] and not asked.ties


def _unique_id(vote: Row) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{vote['task']} {vote['annotator']} {vote['at']}"))


def _about(vote: Row) -> Row:
    said = {key: vote[key] for key in ("annotator", "annotator_kind", "order_shown", "guideline_version", "at")}
    return {"unique_id": _unique_id(vote)} | said


def _annotation(asked: Asked, vote: Row, contents: dict[str, str]) -> Row:
    return {
        "unique_id": _unique_id(vote),
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": vote["judgement"].get("seconds"),
        "created_at": vote["at"],
        "updated_at": vote["at"],
        "parent_prediction": None,
        "result": [
            {"id": str(number), "from_name": name, "to_name": of, "type": type, "origin": "manual", **value}
            for number, (name, of, type, value) in enumerate(_results(asked, vote["judgement"], contents), 1)
        ],
    }


def _results(asked: Asked, judgement: Row, contents: dict[str, str]) -> Iterator[tuple[str, str, str, Row]]:
    """(name of the control, of what it speaks, its type, value) of all that one judgement says."""
    if ranking := judgement.get("ranking"):
        if _is_pairwise(asked):
            side = "left" if ranking[0] == ["a"] else "right"
            yield "comparison", "comparison", "pairwise", {"value": {"selected": side}}
        else:
            places = {str(place): group for place, group in enumerate(ranking, 1)}
            yield "ranking", "answers", "ranker", {"value": {"ranker": places}}
    if "strength" in judgement:
        yield "strength", "prompt", "rating", {"value": {"rating": judgement["strength"]}}
    for key, given in judgement.get("ratings", {}).items():
        for axis, value in given.items():
            type = _rating_type(asked, axis)
            yield f"{asked.name_of(axis)}_{key}", key, type, {"value": {type: value}}
    for key, accepted in judgement.get("acceptable", {}).items():
        yield f"acceptable_{key}", key, "choices", {"value": {"choices": [YES if accepted else NO]}}
    for key, flags in judgement.get("flags", {}).items():
        if flags:
            yield f"flags_{key}", key, "choices", {"value": {"choices": flags}}
    for key, text in judgement.get("corrections", {}).items():
        yield f"correction_{key}", key, "textarea", {"value": {"text": [text]}}
    for key, marks in judgement.get("marks", {}).items():
        for mark in marks:
            start, end = mark["start"], mark["end"]
            value = {"start": start, "end": end, "text": contents[key][start:end], "labels": [mark["label"]]}
            note = {"meta": {"text": [mark["comment"]]}} if "comment" in mark else {}
            yield f"marks_{key}", key, "labels", {"value": value, **note}
    if judgement.get("none_acceptable"):
        yield "none_acceptable", "prompt", "choices", {"value": {"choices": [YES]}}
    for part in ("demonstration", "rationale"):
        if judgement.get(part):
            yield part, "prompt", "textarea", {"value": {"text": [judgement[part]]}}


def _rating_type(asked: Asked, axis: str) -> str:
    low, high = asked.axes[axis]
    return "rating" if low in STARS and high in STARS else "number"


def configuration(snapshot: Snapshot) -> bytes:
    """The labelling configuration: which controls there are, and of what each speaks."""
    asked = asked_in(snapshot)
    view = ElementTree.Element("View")

    def tag(kind: str, parent: ElementTree.Element = view, /, **attributes: Any) -> ElementTree.Element:
        return ElementTree.SubElement(parent, kind, {key: str(value) for key, value in attributes.items()})

    def title(text: str) -> None:
        tag("Header", value=text, size=5)

    def choices(name: str, of: str, values: list[str], choice: str = "single") -> None:
        parent = tag("Choices", name=name, toName=of, choice=choice)
        for value in values:
            tag("Choice", parent, value=value)

    tag("Paragraphs", name="prompt", value="$messages", nameKey="role", textKey="content", layout="dialogue")
    for key in asked.keys:
        title(f"Completion {key.upper()}")
        tag("Text", name=key, value=f"${key}")
    if _is_pairwise(asked):
        tag("Pairwise", name="comparison", toName="a,b")
    elif asked.ranked_sizes:
        tag("List", name="answers", value="$answers", title="Best first")
        ranker = tag("Ranker", name="ranking", toName="answers")
        for place in range(1, max(asked.ranked_sizes) + 1):
            tag("Bucket", ranker, name=place, title=place)
    if "strength" in asked.parts:
        title("How much better is the best?")
        tag("Rating", name="strength", toName="prompt", maxRating=3)
    for key in asked.keys:
        of = f"completion {key.upper()}"
        for axis, (low, high) in asked.axes.items():
            name = f"{asked.name_of(axis)}_{key}"
            title(f"{axis}: {of}")
            if _rating_type(asked, axis) == "rating":
                tag("Rating", name=name, toName=key, maxRating=high)
            else:
                tag("Number", name=name, toName=key, min=low, max=high, step=1)
        if "acceptable" in asked.parts:
            title(f"Acceptable? {of}")
            choices(f"acceptable_{key}", key, [YES, NO])
        if asked.flags:
            title(f"Flags of {of}")
            choices(f"flags_{key}", key, asked.flags, "multiple")
        if "corrections" in asked.parts:
            title(f"A better text than {of}")
            tag("TextArea", name=f"correction_{key}", toName=key, rows=4, maxSubmissions=1)
        if asked.marks:
            title(f"Marks in {of}")
            labels = tag("Labels", name=f"marks_{key}", toName=key)
            for label in asked.marks:
                tag("Label", labels, value=label)
    if "none_acceptable" in asked.parts:
        title("Is none of them good?")
        choices("none_acceptable", "prompt", [YES])
    for part, asking in (("demonstration", "The completion that you would want"), ("rationale", "Why?")):
        if part in asked.parts:
            title(asking)
            tag("TextArea", name=part, toName="prompt", rows=4, maxSubmissions=1)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="utf-8") + b"\n"


LABEL_STUDIO = View(
    "tasks with annotations for Label Studio, and the labelling configuration they belong to",
    frozen="votes",
    rows=tasks,
    kinds=OF_RECORDS,
    beside={"config.xml": configuration},
)
