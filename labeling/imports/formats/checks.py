"""What every format asks of the parts of a row: texts, messages, numbers, times, judgements. Pure.

Each check returns the part as Prefloop keeps it or raises RowRejected with a reason that names the field.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from labeling.imports.records import Message, Record, Text, Vote
from labeling.projects.feedback import MAX_MARKS, MAX_SECONDS, MAX_TEXT, ranking_problem, written_problem
from labeling.projects.text import ROLES
from labeling.web import strict_json

MAX_COMPLETIONS = 64
KEYS = "abcdefghijklmnopqrstuvwxyz"  # a judgement names completions by these
MAX_ID = 120
MAX_SOURCE = 200
MAX_LICENCE = 80
MAX_AXIS = 60

# How others name who speaks.
ROLE_OF = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "instruction": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant",
    "chatbot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
TOOL_ROLES = {"tool", "tools", "function", "function_call", "function_response", "tool_call", "tool_response", "observation"}
KINDS = {"human": "human", "imported": "human", "simulated": "simulated", "model": "model"}
TRUE, FALSE = ("true", "yes", "1", "t", "y"), ("false", "no", "0", "f", "n")


class RowRejected(Exception):
    """A row cannot be taken; the message says why, for the person who sent it."""


def shown(value: Any, longest: int = 60) -> str:
    """A value from outside as a reason may quote it: short, and on one line."""
    # Of a long value repr() would first write out all of it.
    text = repr(value[: longest + 1]) if isinstance(value, str) else repr(value) if _is_plain(value) else type(value).__name__
    return text if len(text) <= longest + 2 else text[:longest] + "…"


def _is_plain(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() < 200
    return value is None or isinstance(value, float)


# --- texts and numbers --------------------------------------------------------------------------
def clean(text: Any, where: str) -> str:
    """A text that is not empty and that both databases can keep."""
    if not isinstance(text, str) or not text.strip():
        raise RowRejected(f"{where}: must be a text that is not empty")
    return storable(text, where)


def storable(text: str, where: str) -> str:
    if "\x00" in text:
        raise RowRejected(f"{where}: holds a NUL character, which databases refuse")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowRejected(f"{where}: holds half of a surrogate pair") from None
    return text


def storable_json(value: Any, where: str) -> Any:
    """An object or list of such values as JSON can hold and both databases can keep."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            storable(item, where)
        elif isinstance(item, dict | list):
            if depth >= strict_json.MAX_NESTING:
                raise RowRejected(f"{where}: is nested too deeply")
            if isinstance(item, dict) and not all(isinstance(key, str) for key in item):
                raise RowRejected(f"{where}: has a name that is not a text")
            waiting += [(each, depth + 1) for each in (item.values() if isinstance(item, dict) else item)]
            waiting += [(key, depth) for key in item] if isinstance(item, dict) else []
        elif item is not None and not isinstance(item, bool) and not _is_number(item):
            raise RowRejected(f"{where}: holds what JSON cannot: {shown(item)}")
    return value


def short_text(value: Any, where: str, longest: int) -> str:
    """A name or an id, empty where there is none. A whole number counts as its digits."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 200:
        value = str(value)
    if not isinstance(value, str) or len(value) > longest:
        raise RowRejected(f"{where}: must be a text of at most {longest} characters")
    return storable(value, where)


def tags_of(value: Any, where: str = "tags") -> list[str]:
    """A list of tags; in a spreadsheet they stand in one cell, with commas or as JSON."""
    if value is None:
        return []
    if isinstance(value, str):
        value = as_json(value, list) or [tag.strip() for tag in value.split(",") if tag.strip()]
    if not isinstance(value, list) or not all(isinstance(tag, str) and 0 < len(tag) <= 60 for tag in value):
        raise RowRejected(f"{where}: must be a list of texts of at most 60 characters")
    return sorted({storable(tag, where) for tag in value})


def as_json(value: Any, kind: type | tuple[type, ...]) -> Any:
    """The value of this kind that a text holds as JSON (Parquet and CSV carry such), or that the value is; else None."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = strict_json.parse(value.encode("utf-8"))
        except ValueError:
            return None
    return value if isinstance(value, kind) and not isinstance(value, str) else None


def number_of(value: Any, where: str) -> float | int | None:
    """A finite number, also as a text; None where the source says that there is none."""
    if isinstance(value, str):
        text = value.strip()
        if text.casefold() in ("", "n/a", "na", "none", "null", "nan"):
            return None
        try:
            value = float(text)
        except ValueError:
            raise RowRejected(f"{where}: must be a number, not {shown(value)}") from None
        if math.isfinite(value) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowRejected(f"{where}: must be a number")
    if isinstance(value, float) and math.isnan(value):
        return None  # what spreadsheets and data frames write for nothing
    if not -(2**63) <= value < 2**63:
        raise RowRejected(f"{where}: is a number too large")
    return value


def flag_of(value: Any, where: str) -> bool | None:
    """True or false, also as a word or as 0 and 1; None where nothing is said."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, bool):
        return value
    digit = "1" if value == 1 else "0" if value == 0 else "?"
    word = value.strip().casefold() if isinstance(value, str) else digit
    if not word:
        return None
    if word not in TRUE + FALSE:
        raise RowRejected(f"{where}: must be true or false")
    return word in TRUE


def time_of(value: Any, where: str) -> datetime | None:
    """ISO 8601 (UTC where it names no zone) or seconds or milliseconds since 1970."""
    if isinstance(value, datetime):
        found = value
    elif value is None or value == "":
        return None
    else:
        try:
            if isinstance(value, str) and not value.strip().replace(".", "", 1).isdecimal():
                found = datetime.fromisoformat(value.strip())
            else:
                seconds = number_of(value, where)
                if seconds is None:
                    return None
                found = datetime.fromtimestamp(seconds / 1000 if abs(seconds) > 1e11 else seconds, UTC)
        except (ValueError, OverflowError, OSError):
            raise RowRejected(f"{where}: must be a time such as 2026-11-21T08:00:00Z") from None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise RowRejected(f"{where}: must be a time such as 2026-11-21T08:00:00Z") from None


def kind_of(value: Any, where: str = "annotator_kind") -> str:
    if value is None or value == "":
        return "human"
    if not isinstance(value, str) or value not in KINDS:
        raise RowRejected(f"{where}: must be human, simulated or model")
    return KINDS[value]


def axis_name(name: str) -> str:
    """Of a rating, as projects name theirs: "Fine-grained score" becomes "fine_grained_score"."""
    return "_".join("".join(char if char.isalnum() else " " for char in name.casefold()).split())[:MAX_AXIS]


# --- messages -----------------------------------------------------------------------------------
def messages_of(value: Any, where: str, *, strict: bool = False) -> list[Message]:
    """A conversation; a plain text is one user message. `strict` takes our own shape alone.

    Otherwise roles may go by other names, messages may be ShareGPT's {"from", "value"} or hold text in parts, and an empty
    system message counts as none. Tool calls and their results are refused: Prefloop has no place for them yet.
    """
    if isinstance(value, str):
        if not _looks_like_messages(value):
            return [{"role": "user", "content": clean(value, where)}]
        value = as_json(value, list)
    if not isinstance(value, list) or not value:
        raise RowRejected(f"{where}: must be a text or a list of messages that is not empty")
    messages = []
    for index, message in enumerate(value):
        here = f"{where}[{index}]"
        role, content = _said_by_us(message, here) if strict else _said_by_others(message, here)
        if strict or role != "system" or (isinstance(content, str) and content.strip()):
            messages.append({"role": role, "content": clean(content, f"{here}.content")})
    if not messages:
        raise RowRejected(f"{where}: holds no message but an empty system message")
    return messages


def _looks_like_messages(text: str) -> bool:
    found = as_json(text, list) if text.lstrip()[:1] == "[" else None
    return bool(found) and all(
        isinstance(item, dict) and ({"role", "content"} <= item.keys() or {"from", "value"} <= item.keys()) for item in found
    )


def _said_by_us(message: Any, where: str) -> tuple[str, Any]:
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise RowRejected(f'{where}: must be {{"role", "content"}}')
    if not isinstance(message["role"], str) or message["role"] not in ROLES:
        raise RowRejected(f"{where}.role: must be one of {', '.join(ROLES)}")
    return message["role"], message["content"]


def _said_by_others(message: Any, where: str) -> tuple[str, Any]:
    if not isinstance(message, dict):
        raise RowRejected(f'{where}: must be {{"role", "content"}}')
    sharegpt = "role" not in message and "from" in message
    role, content = (message["from"], message.get("value")) if sharegpt else (message.get("role"), message.get("content"))
    name = role.strip().casefold() if isinstance(role, str) else ""
    if name in TOOL_ROLES or message.get("tool_calls") or message.get("function_call"):
        raise RowRejected(f"{where}: is a call of a tool or its result, which Prefloop does not keep")
    if name not in ROLE_OF:
        raise RowRejected(f"{where}.{'from' if sharegpt else 'role'}: must be one of {', '.join(ROLES)}")
    return ROLE_OF[name], _joined(content, where) if isinstance(content, list) else content


def _joined(parts: list[Any], where: str) -> str:
    """Content in parts, as models that also see images take it."""
    texts = []
    for part in parts:
        if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, str):
            texts.append(part)
        else:
            raise RowRejected(f"{where}.content: holds a part that is not text")
    return "\n".join(texts)


def prompt_of(value: Any, where: str = "prompt", *, strict: bool = False) -> list[Message]:
    """Messages that end with the user's, so that a completion can follow."""
    messages = messages_of(value, where, strict=strict)
    if messages[-1]["role"] != "user":
        raise RowRejected(f"{where}: the last message must be the user's")
    return messages


def completion_of(
    value: Any, where: str, options: Mapping[str, str], *, model: Any = None, model_where: str = "",
    sampling: dict[str, Any] | None = None,
) -> Text:  # fmt: skip
    """A completion: a text, or a list of one assistant message. An empty one becomes what the option `empty` says."""
    if isinstance(value, str) and _looks_like_messages(value):
        value = as_json(value, list)
    if isinstance(value, list):
        if not value:
            raise RowRejected(f"{where}: must be a text or a list of messages that is not empty")
        if len(value) > 1:
            raise RowRejected(f"{where}: must be one message of the assistant, this has {len(value)} messages")
        role, value = _said_by_others(value[0], f"{where}[0]")
        if role != "assistant":
            raise RowRejected(f"{where}[0].role: must be assistant")
        where = f"{where}[0].content"
    if options.get("empty") and (value is None or value == "" or (isinstance(value, str) and not value.strip())):
        value = options["empty"]
    return Text(clean(value, where), short_text(model, model_where or f"{where}.model", MAX_ID), sampling or {})


# --- records ------------------------------------------------------------------------------------
def ranking_of(scores: Sequence[float]) -> list[list[str]]:
    """Completions by their scores, the highest first; equal scores tie."""
    return [
        [key for key, score in zip(KEYS, scores, strict=False) if score == value]
        for value in sorted(set(scores), reverse=True)
    ]


def preferred(which: int | None) -> list[list[str]]:
    """The ranking of two completions: 0 the first is better, 1 the second, None neither."""
    return [["a", "b"]] if which is None else [["a"], ["b"]] if which == 0 else [["b"], ["a"]]


def make_record(
    line: int, prompt: list[Message], completions: list[Text], votes: list[Vote], **origin: Any
) -> Record:
    """A record that keeps what is promised of one; raises RowRejected where it cannot."""
    if len(completions) > MAX_COMPLETIONS:
        raise RowRejected(f"completions: at most {MAX_COMPLETIONS}, this row has {len(completions)}")
    if votes:
        completions, votes = _without_equals(completions, votes)
        if len(completions) > len(KEYS):
            raise RowRejected(f"completions: a judgement can name at most {len(KEYS)}, this row has {len(completions)}")
        for vote in votes:
            check_judgement(vote.judgement, completions)
            order, keys = vote.order_shown, KEYS[: len(completions)]
            if order is not None and (len(order) != len(keys) or any(key not in order for key in keys)):
                raise RowRejected("order_shown: must name every completion once")
    return Record(line, prompt, completions, votes, **origin)


def _without_equals(completions: list[Text], votes: list[Vote]) -> tuple[list[Text], list[Vote]]:
    """Completions of one text become one: nobody can prefer a text to itself.

    Left alone where every vote ties them and they come from different models, which is worth knowing of the models.
    """
    first: dict[str, str] = {}
    merged = {key: first.setdefault(item.content.strip(), key) for key, item in zip(KEYS, completions, strict=False)}
    if len(first) == len(merged):
        return completions, votes
    apart = any(_ranks_apart(vote.judgement.get("ranking") or [], merged) for vote in votes)
    if not apart and len({(item.content.strip(), item.model) for item in completions}) == len(completions):
        return completions, votes
    if apart and len(first) == 1:
        raise RowRejected("completions: are the same text, so that none can be the better one")
    kept = [key for key in merged if merged[key] == key]
    renamed = dict(zip(kept, KEYS, strict=False))
    new = {key: renamed[merged[key]] for key in merged}
    return [completions[KEYS.index(key)] for key in kept], [renamed_vote(vote, new) for vote in votes]


def _ranks_apart(ranking: list[list[str]], merged: dict[str, str]) -> bool:
    place = {key: rank for rank, group in enumerate(ranking) for key in group if key in merged}
    return any(place[key] != place[merged[key]] for key in place if merged[key] in place)


def renamed_vote(vote: Vote, new: Mapping[str, str]) -> Vote:
    """The vote with completions under other names; of several that become one, the best placed and first named counts."""
    body = dict(vote.judgement)
    if ranking := body.get("ranking"):
        seen: set[str] = set()
        groups = [[name for key in group if (name := new[key]) not in seen and not seen.add(name)] for group in ranking]
        body["ranking"] = [group for group in groups if group]
    for part in ("ratings", "acceptable", "flags", "corrections", "marks"):
        if isinstance(body.get(part), dict):
            body[part] = {new[key]: value for key, value in reversed(list(body[part].items()))}
    # A wrong name stays one, for the check of the order to find.
    shown_once = vote.order_shown and list(dict.fromkeys(new.get(str(key), str(key)) for key in vote.order_shown))
    return Vote(body, vote.annotator, vote.kind, shown_once, vote.at, vote.guideline_version)


PARTS = (
    "ranking", "strength", "ratings", "acceptable", "flags", "corrections", "marks", "demonstration",
    "none_acceptable", "rationale", "seconds",
)  # fmt: skip


def check_judgement(body: Any, completions: Sequence[Text], where: str = "judgement") -> None:
    """Whether this is a judgement on these completions, whatever the form of the project that it comes into."""
    if not isinstance(body, dict):
        raise RowRejected(f"{where}: must be an object")
    if unknown := sorted(map(str, body.keys() - set(PARTS))):
        raise RowRejected(f"{where}: has an unknown part {shown(unknown[0])}")
    contents = dict(zip(KEYS, (item.content for item in completions), strict=False))
    said = [part for part in PARTS if part != "seconds" and body.get(part) not in (None, {}, [], "", False)]
    if not said:
        raise RowRejected(f"{where}: says nothing")
    for part in said:
        problem = _CHECKS[part](body[part], contents)
        if problem:
            raise RowRejected(f"{where}.{part}: {problem}")
    seconds = body.get("seconds")
    if seconds is not None and (not _is_number(seconds) or not 0 <= seconds <= MAX_SECONDS):
        raise RowRejected(f"{where}.seconds: must lie between 0 and 86400")
    storable_json(body, where)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2.0**63) <= value < 2.0**63


def _each(check: Any) -> Any:
    def problem(value: Any, contents: Mapping[str, str]) -> str:
        if not isinstance(value, dict):
            return "must be an object with the completions' keys"
        for key, item in value.items():
            if key not in contents:
                return f"names a completion {shown(key)} that is not there"
            if found := check(item, contents[key]):
                return f"of {key}: {found}"
        return ""

    return problem


def _rating_problem(item: Any, content: str) -> str:
    if not isinstance(item, dict) or not all(isinstance(axis, str) and 0 < len(axis) <= MAX_AXIS for axis in item):
        return f"must be an object: an axis of at most {MAX_AXIS} characters -> a number"
    return "" if all(map(_is_number, item.values())) else "must be numbers"


def _flags_problem(item: Any, content: str) -> str:
    fine = isinstance(item, list) and all(isinstance(name, str) and 0 < len(name.strip()) <= 40 for name in item)
    return "" if fine else "must be a list of names of at most 40 characters"


def _marks_problem(item: Any, content: str) -> str:
    if not isinstance(item, list) or len(item) > MAX_MARKS:
        return f"must be a list of at most {MAX_MARKS} marks: {{start, end, label}}"
    for mark in item:
        if not isinstance(mark, dict) or not {"start", "end", "label"} <= mark.keys() <= {"start", "end", "label", "comment"}:
            return "must be marks {start, end, label} and perhaps comment"
        start, end, label = mark["start"], mark["end"], mark["label"]
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(content):
            return "must lie within the completion, 0 <= start < end"
        if not isinstance(label, str) or not 0 < len(label.strip()) <= 40:
            return "needs a label of at most 40 characters"
        if "comment" in mark and (not isinstance(mark["comment"], str) or not 0 < len(mark["comment"]) <= 2000):
            return "comment must be a text of 1 to 2000 characters"
    return ""


_CHECKS: dict[str, Any] = {
    "ranking": lambda value, contents: ranking_problem(value, list(contents), ties_allowed=True),
    "strength": lambda value, contents: "" if type(value) is int and 1 <= value <= 3 else "must be 1, 2 or 3",
    "ratings": _each(_rating_problem),
    "acceptable": _each(lambda item, content: "" if isinstance(item, bool) else "must be true or false"),
    "flags": _each(_flags_problem),
    "corrections": _each(
        lambda item, content: written_problem(item) or ("is the completion as it was" if item == content else "")
    ),
    "marks": _each(_marks_problem),
    "demonstration": lambda value, contents: written_problem(value),
    "none_acceptable": lambda value, contents: "" if isinstance(value, bool) else "must be true or false",
    "rationale": lambda value, contents: (
        "" if isinstance(value, str) and len(value) <= MAX_TEXT else f"must be a text of at most {MAX_TEXT} characters"
    ),
}


# --- rows ---------------------------------------------------------------------------------------
def refuse_unknown(data: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    if unknown := sorted(set(data) - set(known)):
        raise RowRejected(f"{where}has an unknown field {shown(unknown[0])}; known: {', '.join(sorted(known))}")


def origin_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Where a row comes from, in columns that any table may have."""
    return {
        "external_id": short_text(data.get("id"), "id", MAX_ID),
        "source": short_text(data.get("source"), "source", MAX_SOURCE),
        "licence": short_text(data.get("licence"), "licence", MAX_LICENCE),
        "tags": tags_of(data.get("tags")),
        "group": short_text(data.get("group_id"), "group_id", MAX_ID),
    }


def loose_origin_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same of tables that others made: a column of that name which holds something else is not ours to read."""

    def fits(value: Any, longest: int) -> str:
        try:
            return short_text(value, "", longest)
        except RowRejected:
            return ""

    try:
        tags = tags_of(data.get("tags"))
    except RowRejected:
        tags = []
    licence = data.get("licence") or data.get("license")
    return {
        "external_id": fits(data.get("id"), MAX_ID), "source": fits(data.get("source"), MAX_SOURCE),
        "licence": fits(licence, MAX_LICENCE), "tags": tags, "group": fits(data.get("group_id"), MAX_ID),
    }  # fmt: skip


def common_turns(first: Sequence[Message], second: Sequence[Message]) -> int:
    """How many messages two conversations begin with in common."""
    n = 0
    for ours, theirs in zip(first, second, strict=False):
        if ours["role"] != theirs["role"] or ours["content"].strip() != theirs["content"].strip():
            break
        n += 1
    return n
