"""Label Studio's full JSON export, with the labelling configuration that says what its results are about."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from labeling.imports.formats.base import EMPTY, BadOptions, Column, Format, Option, Part
from labeling.imports.formats.checks import (
    KEYS,
    MAX_ID,
    RowRejected,
    as_json,
    axis_name,
    check_judgement,
    clean,
    completion_of,
    loose_origin_of,
    make_record,
    messages_of,
    number_of,
    preferred,
    prompt_of,
    short_text,
    shown,
    storable,
    time_of,
)
from labeling.imports.formats.choices import choice_of
from labeling.imports.formats.named import add_named, judgements_by, tell_apart
from labeling.imports.records import Message, Record, Rejected, Text, Vote
from labeling.projects.feedback import MAX_SECONDS, MAX_TEXT

MAX_CONFIG = 200_000
OBJECTS = {"text", "hypertext", "paragraphs", "chat", "list", "markdown"}
CONTROLS = {"pairwise", "ranker", "rating", "number", "choices", "textarea"}
PROMPT_NAMES = ("prompt", "instruction", "question", "input", "query", "chat", "dialogue", "dialog", "messages", "conversation", "context")
CORRECTING = re.compile(r"correct|edit|rewrit|improv|fix")


@dataclass(frozen=True)
class Shown:
    """An object tag: what of the task's data it shows."""

    name: str
    tag: str
    variable: str
    speaker: str = "author"  # keys of the turns of Paragraphs
    words: str = "text"


@dataclass(frozen=True)
class Asked:
    """A control tag and the objects that it asks of."""

    name: str
    tag: str
    of: tuple[str, ...]
    buckets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A labelling configuration and what it says of each task. `completions` are objects, or one List of items."""

    prompt: Shown
    completions: tuple[Shown, ...]
    asked: dict[str, Asked] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


# --- the configuration --------------------------------------------------------------------------
def read_config(options: dict[str, str]) -> Plan:
    """Raises BadOptions where the configuration is not one, or not one that asks of completions."""
    text = options["config"].strip()
    if not text:
        where = "(Settings, Labeling Interface, Code)"
        raise BadOptions(
            {"config": f"is needed to know what left and right are: paste the project's labelling configuration {where}"}
        )
    if len(text) > MAX_CONFIG:
        raise BadOptions({"config": f"has more than {MAX_CONFIG:,} characters"})
    # Without a document type there are no entities: nothing can be fetched and nothing multiplies.
    if re.search(r"<!\s*(?:DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise BadOptions({"config": "declares a document type or entities, which no labelling configuration needs"})
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, UnicodeError) as error:
        raise BadOptions({"config": f"is not XML: {error}"}) from None
    objects, asked = _tags(root)
    prompt, completions = _roles(objects, asked, options)
    return Plan(prompt, completions, asked, options)


def _tags(root: ElementTree.Element) -> tuple[dict[str, Shown], dict[str, Asked]]:
    objects: dict[str, Shown] = {}
    asked: dict[str, Asked] = {}
    for tag in root.iter():
        kind = str(tag.tag).lower()
        name, given = tag.get("name", ""), {key.lower(): value for key, value in tag.attrib.items()}
        if kind in OBJECTS and name and given.get("value", "").startswith("$"):
            speaker, words = given.get("namekey", "author"), given.get("textkey", "text")
            objects[name] = Shown(name, kind, given["value"][1:], speaker, words)
        elif kind in CONTROLS and name:
            of = tuple(part.strip() for part in given.get("toname", "").split(",") if part.strip())
            buckets = tuple(bucket.get("name", "") for bucket in tag.iter() if str(bucket.tag).lower() == "bucket")
            asked[name] = Asked(name, kind, of, buckets)
    return objects, asked


def _roles(
    objects: dict[str, Shown], asked: dict[str, Asked], options: dict[str, str]
) -> tuple[Shown, tuple[Shown, ...]]:
    """Which object is the prompt and which are completions: those compared or ranked, else those asked of one by one."""
    by_variable = {item.variable: item for item in objects.values()}
    prompt = _named(options, "prompt", by_variable, objects)
    compared = [name for control in asked.values() if control.tag == "pairwise" for name in control.of]
    ranked = [name for control in asked.values() if control.tag == "ranker" for name in control.of]
    single = [name for control in asked.values() for name in control.of]
    chosen = next((found for found in (compared, ranked, single) if found), [])
    completions = list(dict.fromkeys(name for name in chosen if name in objects and objects[name] is not prompt))
    if compared and len(compared) != 2:
        raise BadOptions({"config": 'has a Pairwise whose toName does not name two objects, such as toName="answer1,answer2"'})
    if missing := [name for name in chosen if name not in objects]:
        raise BadOptions({"config": f"asks of {shown(missing[0])}, which no tag with a value such as $answer shows"})
    if prompt is None:
        left = [item for item in objects.values() if item.name not in completions]
        known = [item for name in PROMPT_NAMES for item in left if name in (item.variable.lower(), item.name.lower())]
        prompt = next(iter(known or left), None)
    if prompt is None and len(completions) > 1 and not compared and not ranked:
        # Asked of prompt and completion alike.
        known = [objects[name] for name in completions if objects[name].variable.lower() in PROMPT_NAMES]
        prompt = known[0] if known else None
        completions = [name for name in completions if objects[name] is not prompt]
    if prompt is None and len(completions) == 1 and objects[completions[0]].tag in ("chat", "paragraphs"):
        # A conversation that is judged as a whole holds both.
        return objects[completions[0]], ()
    if prompt is None:
        raise BadOptions({"prompt": "cannot be told from the configuration: name the field of the task's data that holds it"})
    return prompt, tuple(objects[name] for name in completions if objects[name] is not prompt)


def _named(options: dict[str, str], name: str, by_variable: dict[str, Shown], objects: dict[str, Shown]) -> Shown | None:
    wanted = options[name].strip().removeprefix("$")
    if not wanted:
        return None
    # What the page does not show may still be in the data.
    return by_variable.get(wanted) or objects.get(wanted) or Shown(wanted, "text", wanted)


# --- tasks --------------------------------------------------------------------------------------
def read_tasks(rows: list[tuple[int, dict[str, Any]]], plan: Plan) -> Iterator[Part]:
    """A record a task. An annotation that says too little is named, and keeps nobody else's out."""
    for line, row in rows:
        problems: list[Rejected] = []
        record = read_task(line, row, plan, problems)
        yield from problems
        if record.votes or not problems:
            yield record


def read_task(line: int, row: dict[str, Any], plan: Plan, problems: list[Rejected]) -> Record:
    """Adds to `problems` what of the annotations cannot be taken."""
    annotations = as_json(row.get("annotations"), list)
    if annotations is None:
        if {"annotator", "annotation_id", "lead_time"} & row.keys():
            raise RowRejected("annotations: is missing; this is JSON_MIN or CSV, which lose comparisons: export as JSON")
        raise RowRejected("annotations: must be a list, as in the export named JSON")
    data = as_json(row.get("data"), dict)
    if data is None:
        raise RowRejected("data: must be an object")
    prompt, completions, names = _texts(data, plan)
    known = judgements_by("unique_id", data.get("judgements"))
    votes = []
    for index, annotation in enumerate(annotations):
        where = f"annotations[{index}]"
        if not isinstance(annotation, dict):
            raise RowRejected(f"{where}: must be an object")
        if annotation.get("was_cancelled"):
            continue
        try:
            vote = _vote(annotation, plan, completions, names)
            if vote.judgement:
                check_judgement(vote.judgement, completions)
        except RowRejected as error:
            problems.append(Rejected(line, f"{where}.{error}"))
            continue
        if vote.judgement:
            tell_apart(vote, known.get(str(annotation.get("unique_id"))))
            votes.append(vote)
    return make_record(line, prompt, completions, votes, **loose_origin_of({**data, "id": row.get("id")}))


def _texts(data: dict[str, Any], plan: Plan) -> tuple[list[Message], list[Text], dict[str, str]]:
    """Prompt, completions, and by what name results speak of each: the object's, or the id of a List's item."""
    options = plan.options
    if not plan.completions:
        return _whole_conversation(data, plan)
    value = _value(data, plan.prompt.variable)
    prompt = _conversation(value, plan.prompt) if isinstance(value, list) else prompt_of(value, f"data.{plan.prompt.variable}")
    if prompt[-1]["role"] != "user":
        raise RowRejected(f"data.{plan.prompt.variable}: the last message must be the user's")
    completions, names = [], {}
    models = as_json(data.get("models"), dict) or {}
    for item in plan.completions:
        where = f"data.{item.variable}"
        value = _value(data, item.variable)
        if item.tag == "list":
            for index, entry in enumerate(value if isinstance(value, list) else []):
                entry = entry if isinstance(entry, dict) else {}
                text = entry.get("body") or entry.get("html") or entry.get("text") or entry.get("title")
                if len(completions) >= len(KEYS):
                    raise RowRejected(f"{where}: has more than {len(KEYS)} items")
                names[short_text(entry.get("id"), f"{where}[{index}].id", MAX_ID)] = KEYS[len(completions)]
                completions.append(completion_of(text, f"{where}[{index}].body", options, model=entry.get("model")))
        elif len(completions) < len(KEYS):
            names[item.name] = KEYS[len(completions)]
            completions.append(completion_of(value, where, options, model=models.get(item.variable)))
    if len(names) < len(completions):
        raise RowRejected("data: two items have one id")
    return prompt, completions, names


def _whole_conversation(data: dict[str, Any], plan: Plan) -> tuple[list[Message], list[Text], dict[str, str]]:
    where = f"data.{plan.prompt.variable}"
    messages = _conversation(_value(data, plan.prompt.variable), plan.prompt)
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or messages[-2]["role"] != "user":
        raise RowRejected(f"{where}: must end with the user's message and the assistant's completion")
    return messages[:-1], [Text(messages[-1]["content"])], {plan.prompt.name: "a"}


def _conversation(value: Any, item: Shown) -> list[Message]:
    """Turns of a Chat ({role, content}) or of Paragraphs, whose configuration names the keys."""
    where = f"data.{item.variable}"
    value = as_json(value, list)
    if not value:
        raise RowRejected(f"{where}: must be a list of turns that is not empty")
    turns = []
    for index, turn in enumerate(value):
        if not isinstance(turn, dict):
            raise RowRejected(f"{where}[{index}]: must be an object")
        if "role" in turn and "content" in turn:
            turns.append({"role": turn["role"], "content": turn["content"]})
        else:
            turns.append({"role": turn.get(item.speaker), "content": turn.get(item.words)})
    return messages_of(turns, where)


def _value(data: dict[str, Any], variable: str) -> Any:
    """Of $answer, $answers[0] or $answers.first."""
    value: Any = data
    for part in [part for part in re.split(r"[.\[\]]+", variable) if part]:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and len(part) < 6:
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


# --- results ------------------------------------------------------------------------------------
def _vote(annotation: dict[str, Any], plan: Plan, completions: list[Text], names: dict[str, str]) -> Vote:
    by = annotation.get("completed_by")
    who = by.get("id") if isinstance(by, dict) else by
    judgement: dict[str, Any] = {}
    results = annotation.get("result")
    for index, result in enumerate(results if isinstance(results, list) else []):
        if isinstance(result, dict) and isinstance(value := result.get("value"), dict):
            _read_result(result, value, f"result[{index}]", judgement, plan, completions, names)
    seconds = number_of(annotation.get("lead_time"), "lead_time")
    if judgement and seconds is not None and 0 <= seconds <= MAX_SECONDS:
        judgement["seconds"] = seconds
    return Vote(
        judgement, short_text(who, "completed_by", MAX_ID), "human", None, time_of(annotation.get("created_at"), "created_at")
    )


def _read_result(
    result: dict[str, Any], value: dict[str, Any], where: str, judgement: dict[str, Any], plan: Plan, completions: list[Text],
    names: dict[str, str],
) -> None:  # fmt: skip
    """Adds one result to the judgement. What asks of something else than the completions is left out."""
    name = result.get("from_name") if isinstance(result.get("from_name"), str) else ""
    to = result.get("to_name") if isinstance(result.get("to_name"), str) else ""
    control = plan.asked.get(name)
    kind = result.get("type")
    key = names.get(to)
    if _add_named(judgement, name, kind, value, names) or _add_mark(judgement, name, result, value, key):
        return
    if kind == "pairwise":
        judgement["ranking"] = _selected(value.get("selected"), control, names, where)
    elif kind == "ranker":
        if ranking := _ranked(value.get("ranker"), control, names, where, plan.options["buckets"]):
            judgement["ranking"] = ranking
    elif kind in ("rating", "number"):
        if key and (rating := number_of(value.get(kind), f"{where}.value.{kind}")) is not None:
            judgement.setdefault("ratings", {}).setdefault(key, {})[_axis(name, to)] = rating
    elif kind == "choices":
        chosen = [text for text in _texts_in(value.get("choices")) if text.strip()]
        says_which = len(chosen) == 1 and len(completions) > 1 and not key
        choice = choice_of(chosen[0], len(completions), [(name,) for name in names]) if says_which else None
        if choice:
            judgement |= choice.judgement()
        elif key:
            flags = judgement.setdefault("flags", {}).setdefault(key, [])
            flags += [storable(text, where).strip()[:40] for text in chosen]
    elif kind == "textarea":
        text = "\n".join(_texts_in(value.get("text")))
        if text.strip() and key and CORRECTING.search(name.lower()):
            # As it was is no correction.
            if text != completions[KEYS.index(key)].content:
                judgement.setdefault("corrections", {})[key] = clean(text, f"{where}.value.text")
        elif text.strip():
            said = [judgement["rationale"]] if "rationale" in judgement else []
            judgement["rationale"] = "\n".join([*said, storable(text, f"{where}.value.text").strip()])[:MAX_TEXT]


def _add_named(judgement: dict[str, Any], name: str, kind: Any, value: dict[str, Any], names: dict[str, str]) -> bool:
    """One of our own controls: a list where it gives several, a single value where it gives one."""
    said = value.get({"rating": "rating", "choices": "choices", "textarea": "text"}.get(str(kind), ""))
    if kind != "rating" and not (kind == "choices" and name.startswith("flags_")):
        said = said[0] if isinstance(said, list) and len(said) == 1 else None
    return said is not None and add_named(judgement, name, said, names)


def _add_mark(judgement: dict[str, Any], name: str, result: dict[str, Any], value: dict[str, Any], key: str | None) -> bool:
    """A span of a completion with its label; the comment stands beside the value."""
    labels = value.get("labels")
    if result.get("type") != "labels" or key is None or not isinstance(labels, list) or len(labels) != 1:
        return False
    mark = {"start": value.get("start"), "end": value.get("end"), "label": labels[0]}
    comment = _texts_in((as_json(result.get("meta"), dict) or {}).get("text"))
    marks = judgement.setdefault("marks", {}).setdefault(key, [])
    marks.append(mark | ({"comment": comment[0]} if comment else {}))
    return True


def _texts_in(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _axis(control: str, of: str) -> str:
    """helpfulness_answer1 and helpfulness_answer2 are one axis."""
    axis, of = axis_name(control), axis_name(of)
    return axis_name(re.sub(rf"(?:^|_){re.escape(of)}(?=_|$)", "", axis)) or "rating" if of else axis or "rating"


def _selected(selected: Any, control: Asked | None, names: dict[str, str], where: str) -> list[list[str]]:
    if control is None or control.tag != "pairwise" or any(name not in names for name in control.of):
        raise RowRejected(f"{where}.from_name: is not a Pairwise of the configuration")
    if selected not in ("left", "right"):
        raise RowRejected(f"{where}.value.selected: must be left or right, not {shown(selected)}")
    first = names[control.of[0]]
    return preferred(int((selected == "left") != (first == "a")))


def _ranked(value: Any, control: Asked | None, names: dict[str, str], where: str, buckets: str) -> list[list[str]] | None:
    """A bare list, the same under the control's name, or buckets in the order of the configuration.

    None where nothing was sorted. Items in `_` are those not sorted, so a ranking that leaves any there says too little.
    """
    where = f"{where}.value.ranker"
    if isinstance(value, dict) and control and set(value) <= {control.name, "_"} and not control.buckets:
        rest, value = value.get("_"), value.get(control.name)
        if rest:
            if not value:
                return None
            raise RowRejected(f"{where}: leaves {len(rest)} items unsorted" if isinstance(rest, list) else f"{where}._: must be a list")
    if isinstance(value, list):
        groups = [[item] for item in value]
    elif isinstance(value, dict):
        groups = _buckets(value, control, where, buckets)
        if groups is None:
            return None
    else:
        raise RowRejected(f"{where}: must be a list of ids, or buckets of such")
    ranking = []
    for group in groups:
        keys = []
        for item in group:
            id = short_text(item, where, MAX_ID)
            if id not in names:
                raise RowRejected(f"{where}: names {shown(id)}, which is not an item of the task")
            keys.append(names[id])
        if keys:
            ranking.append(keys)
    return ranking or None


def _buckets(value: dict[str, Any], control: Asked | None, where: str, how: str) -> list[list[Any]] | None:
    if not all(isinstance(items, list) for items in value.values()):
        raise RowRejected(f"{where}: must be a list of ids, or buckets of such")
    order = control.buckets if control else ()
    if unknown := [name for name in value if name != "_" and name not in order]:
        raise RowRejected(f"{where}: has a bucket {shown(unknown[0])} that is not in the configuration")
    sorted_in = [value[name] for name in order if value.get(name)]
    if not sorted_in:
        return None
    if value.get("_"):
        raise RowRejected(f"{where}: leaves {len(value['_'])} items unsorted")
    return [[item] for items in sorted_in for item in items] if how == "order" else sorted_in


FORMATS = (
    Format(
        name="label_studio",
        title="Label Studio tasks",
        describe="A task a row with its data and everybody's annotations: the full JSON export.",
        example={
            "id": 1,
            "data": {
                "prompt": "Why is the sky blue?", "answer1": "Because air scatters blue light most.", "answer2": "It mirrors the sea."
            },
            "annotations": [
                {"id": 7, "completed_by": 3, "was_cancelled": False, "lead_time": 12.4, "created_at": "2026-11-21T08:00:00Z",
                 "result": [{"from_name": "better", "to_name": "better", "type": "pairwise", "value": {"selected": "left"}}]},
            ],
        },
        read=read_tasks,
        prepare=read_config,
        columns=(
            Column("data", "what the task shows", required=True), Column("annotations", "a list, with result", required=True),
            Column("id"),
        ),
        options=(
            Option("config", "The project's labelling configuration (XML), which says what left and right are.", long=True),
            Option("prompt", "Which field of data is the prompt. Left out: what the configuration shows and doesn't ask of."),
            Option("buckets", "Items in one bucket of a Ranker: they tie, or they are in order.", "tie", ("tie", "order")),
            EMPTY,
        ),
    ),
)  # fmt: skip
