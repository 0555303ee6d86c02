"""Which format a file is in, from its first rows, with reasons that a person can check. Pure.

Each format has signs to know it by; those whose signs are there are then tried on the rows, and what can be read best
comes first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from labeling.imports import mapping
from labeling.imports.formats import FORMATS
from labeling.imports.formats.checks import as_json
from labeling.imports.formats.transcripts import is_transcript
from labeling.imports.records import Record, Rejected, SourceRow

MAX_ROWS = 50
Row = dict[str, Any]
Sign = Callable[[Row], str]  # what of the row speaks for the format, empty if nothing does


@dataclass(slots=True)
class Recognised:
    """`format` is None where none fits; `certainty` is "sure", "likely" or "none". `also` names what else would do.

    `mapping` and `options` are how the rows can be read so: columns by other names, what they leave open.
    """

    format: str | None
    certainty: str
    reasons: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    mapping: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


# --- signs --------------------------------------------------------------------------------------
def _has(row: Row, *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


def _named(*names: str, also: str = "") -> Sign:
    """All of these columns are there."""
    said = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return lambda row: f"has {said}{also}" if _has(row, *names) else ""


def _list_of(row: Row, name: str, *keys: str) -> bool:
    """The column is a list whose first item is an object with these."""
    value = as_json(row.get(name), list)
    return bool(value) and isinstance(value[0], dict) and set(keys) <= value[0].keys()


def _votes(row: Row) -> str:
    if _has(row, "prompt", "judgement") and _list_of(row, "completions", "content"):
        return "has prompt, completions and a judgement on them"
    return ""


def _pairs(row: Row) -> str:
    if _has(row, "prompt", "chosen", "rejected") and ("chosen_source" in row or _list_of(row, "votes", "choice")):
        return "has chosen and rejected with their sources and votes, as our own view pairs"
    return ""


def _hh(row: Row) -> str:
    if is_transcript(row.get("chosen")) and is_transcript(row.get("rejected")):
        return r"has chosen and rejected that begin with \n\nHuman:"
    return ""


def _preference(row: Row) -> str:
    if _hh(row) or not _has(row, "chosen", "rejected"):
        return ""
    prompt = "prompt, chosen and rejected" if _has(row, "prompt") else "chosen and rejected"
    how = "as messages" if as_json(row["chosen"], list) else "as texts"
    return f"has {prompt} {how}"


def _sft(row: Row) -> str:
    for name in ("messages", "conversations"):
        if _list_of(row, name, "role") or _list_of(row, name, "from"):
            return f"has {name}, a conversation"
    if _has(row, "prompt", "completion") and not {"label", "model", "winner"} & row.keys():
        return "has prompt and completion"
    return ""


def _completions(row: Row) -> str:
    if _has(row, "prompt") and as_json(row.get("completions"), list) and "judgement" not in row and "labels" not in row:
        return "has prompt and a list of completions"
    if _has(row, "prompt", "completion", "model") and "label" not in row:
        return "has prompt, completion and the model that wrote it"
    return ""


def _prompts(row: Row) -> str:
    # A prompt alone is little to go by, whatever lies beside it.
    prompt = row.get("prompt")
    is_one = isinstance(prompt, str) or _list_of(row, "prompt", "role")
    others = {"chosen", "rejected", "completion", "completions", "label", "winner", "response", "messages"} & row.keys()
    return "has prompt and nothing to judge" if is_one and prompt and not others else ""


def _ultrafeedback(row: Row) -> str:
    if _has(row, "instruction") and _list_of(row, "completions", "response"):
        return "has instruction and completions with responses and annotations"
    return ""


def _oasst(row: Row) -> str:
    root = as_json(row.get("prompt"), dict)
    if root and "replies" in root:
        return "has prompt with replies to it, a tree of messages"
    if _has(row, "message_id", "role", "text") and "parent_id" in row:
        return "has message_id, parent_id, role and text: messages of trees"
    return ""


def _argilla(row: Row) -> str:
    if as_json(row.get("fields"), dict) is not None and "responses" in row:
        return "has fields and responses"
    if any(name.endswith((".responses.users", "-suggestion-metadata")) for name in row):
        return "has questions with responses or suggestions beside them"
    if any(_list_of(row, name, "user_id", "value", "status") for name in row):
        return "has a column of answers, each with user_id, value and status"
    return ""


def _label_studio(row: Row) -> str:
    if as_json(row.get("data"), dict) is not None and as_json(row.get("annotations"), list) is not None:
        return "has data and annotations, the full JSON export"
    if _has(row, "annotation_id", "annotator", "lead_time"):
        return "has annotator, annotation_id and lead_time: JSON_MIN, which has to be exported again as JSON"
    return ""


def _potato(row: Row) -> str:
    if not _has(row, "instance_id") and not _has(row, "id"):
        return ""
    answers = [row, *(as_json(row.get(name), dict) or {} for name in ("annotations", "annotation", "label_annotations"))]
    for place in answers:
        for value in place.values():
            if isinstance(value, dict) and {"selection", "scale_value", "rank_order"} & value.keys():
                return "has an answer with " + sorted({"selection", "scale_value", "rank_order"} & value.keys())[0]
    if _has(row, "instance_id") and str(row.get("chosen")).strip().upper() in ("A", "B", "TIE"):
        return "has instance_id and the letter of what was chosen"
    return ""


def _squality(row: Row) -> str:
    return "has passage-id and questions" if _has(row, "passage-id") and as_json(row.get("questions"), dict) else ""


def _unpaired(row: Row) -> str:
    if not _has(row, "prompt", "completion") or row.get("label") is None:
        return ""
    return "has prompt, completion and label"


def _is_stepwise(row: Row) -> bool:
    return _has(row, "completions", "labels") and isinstance(as_json(row["labels"], list), list)


# What only this format has, before what several could have.
SIGNS: tuple[tuple[str, Sign], ...] = (
    ("votes", _votes),
    ("pairs", _pairs),
    ("hh_rlhf", _hh),
    ("helpsteer3", _named("context", "response1", "response2", also=" with individual or overall preferences")),
    ("helpsteer2_preference", _named("response_1", "response_2", "preference_strength")),
    ("helpsteer2", _named("prompt", "response", "helpfulness", "correctness", "verbosity")),
    ("ultrafeedback", _ultrafeedback),
    ("arena", _named("conversation_a", "conversation_b")),
    ("webgpt", _named("question", "answer_0", "score_0", "answer_1", "score_1")),
    ("squality", _squality),
    ("pandalm", _named("instruction", "response1", "response2", "annotator1")),
    ("oasst", _oasst),
    ("label_studio", _label_studio),
    ("argilla", _argilla),
    ("potato", _potato),
    ("comparison", _named("prompt", "completion_a", "completion_b")),
    ("preference", _preference),
    ("unpaired", _unpaired),
    ("completions", _completions),
    ("sft", _sft),
    ("prompts", _prompts),
)
# Tried by mapping where no format's own columns are there, what says most first.
JUDGED = ("comparison", "preference", "unpaired")
NEEDED: dict[str, set[str]] = {
    "comparison": {"prompt", "completion_a", "completion_b"}, "preference": {"prompt", "chosen", "rejected"},
    "unpaired": {"prompt", "completion", "label"}, "sft": {"prompt", "completion"}, "prompts": {"prompt"},
}  # fmt: skip
SAYS_WHICH = {"winner", "ranking", "scale", "rank_a", "score_a", "rating_a"}
BY_MAPPING = (*JUDGED, "sft", "prompts")


# --- recognising --------------------------------------------------------------------------------
def recognise(first: Sequence[SourceRow], *, kind: str = "", filename: str = "") -> Recognised:
    """What the first rows of a file are. `kind` is how the file is stored, `filename` decides between equals alone."""
    rows = [row for row in islice(first, MAX_ROWS) if row.data is not None]
    if not rows:
        problem = next((row.problem for row in first if row.problem), "")
        return Recognised(None, "none", [f"no row can be read: {problem}" if problem else "there are no rows"])
    if all(_is_stepwise(row.data or {}) for row in rows):
        return Recognised(None, "none", ["has completions and labels of steps (TRL's stepwise supervision), which cannot be taken"])
    found = [reading for name, sign in SIGNS if (reading := _by_sign(name, sign, rows))]
    # Equal ones keep the order of SIGNS but for one that the file is named after.
    found.sort(key=lambda reading: (-reading.share, reading.name not in filename.lower()))
    if not found:
        found = _by_mapping(BY_MAPPING, rows)
    elif not found[0].share or found[0].name == "prompts":
        # Any table of judgements may have a column prompt.
        found = [*_by_mapping(JUDGED, rows), *found]
    if not found:
        return Recognised(None, "none", _at_a_loss(rows, kind))
    best = found[0]
    also = list(dict.fromkeys(reading.name for reading in found[1:] if reading.name != best.name))
    return Recognised(best.name, best.certainty, best.reasons(), also, best.mapping, best.options)


@dataclass(slots=True)
class Reading:
    """A format tried on the first rows: the share of them that give a record, and the first reason why one does not."""

    name: str
    sign: str
    n: int
    n_signed: int
    share: float
    problem: str = ""
    mapping: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def certainty(self) -> str:
        clear = self.share >= 0.8 and self.n_signed >= 0.8 * self.n and not self.mapping and self.name != "prompts"
        return "sure" if clear else "likely"

    def reasons(self) -> list[str]:
        reasons = [self.sign if self.n_signed == self.n else f"{self.sign} in {self.n_signed} of the first {self.n} rows"]
        reasons += [f"{place} is read as {name}" for name, place in self.mapping.items()]
        if self.name in ("prompts", "completions") and self.options.get("extra") == "ignore":
            reasons.append("other columns are ignored")
        if self.options.get("first") == "0":
            reasons.append("winner counts from 0")
        if self.problem and self.share < 1:
            reasons.append(f"{round((1 - self.share) * self.n)} of the first {self.n} rows cannot be taken: {self.problem}")
        return reasons


def _at_a_loss(rows: Sequence[SourceRow], kind: str) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row.data or {}))
    reasons = [f"no format has these columns: {', '.join(columns[:12])[:300]}", "choose one, and say which column is which"]
    if kind == "csv" and len(columns) == 1:
        reasons.append("the table has one column only: is it separated by something other than commas?")
    return reasons


def _by_sign(name: str, sign: Sign, rows: Sequence[SourceRow]) -> Reading | None:
    signs = [said for row in rows if (said := sign(row.data or {}))]
    # Rows of other shapes may lie between; one in two is too many.
    if 2 * len(signs) <= len(rows):
        return None
    return _tried(name, signs[0], len(signs), rows, {})


def _by_mapping(names: Sequence[str], rows: Sequence[SourceRow]) -> list[Reading]:
    """Formats that the rows could be in if some columns go by other names."""
    columns = list(dict.fromkeys(column for row in rows for column in _paths(row.data or {})))[: mapping.MAX_COLUMNS]
    readings = []
    for name in names:
        proposed = mapping.propose(columns, name)
        there = {*proposed, *columns}
        if proposed and NEEDED[name] <= there and (name != "comparison" or SAYS_WHICH & there):
            reading = _tried(name, f"has columns like those of {name}", len(rows), rows, proposed)
            if reading.share >= 0.5:
                readings.append(reading)
    return readings


def _paths(data: Row) -> list[str]:
    """Columns, and what lies one step inside of objects and lists of texts."""
    paths = []
    for name, value in data.items():
        paths.append(name)
        if isinstance(value, dict) and len(value) <= 20:
            paths += [f"{name}.{inner}" for inner in value]
        elif isinstance(value, list) and 2 <= len(value) <= 8 and all(isinstance(item, str) for item in value):
            paths += [f"{name}.{index}" for index in range(len(value))]
    return paths


def _tried(
    name: str, sign: str, n_signed: int, rows: Sequence[SourceRow], proposed: dict[str, str]
) -> Reading:
    """Reads the rows. Where a format needs an option first, its signs have to do."""
    format = FORMATS[name]
    options = _options(name, rows, proposed)
    reading = Reading(name, sign, len(rows), n_signed, 1.0, "", proposed, options)
    if any(option.name == "config" for option in format.options):
        return reading
    bad: dict[int, str] = {}
    good = set()
    for part in format.records(mapping.mapped(rows, proposed, format), options):
        if isinstance(part, Rejected):
            bad.setdefault(part.line, part.reason)
        elif isinstance(part, Record):
            good.add(part.line)
    lost = [line for line in bad if line not in good]
    reading.share = 1 - len(lost) / len(rows)
    reading.problem = bad[lost[0]] if lost else ""
    return reading


def _options(name: str, rows: Sequence[SourceRow], proposed: dict[str, str]) -> dict[str, str]:
    """What the rows show of how they have to be read."""
    known = {column.name for column in FORMATS[name].columns}
    columns = {column for row in rows for column in row.data or {}}
    if name in ("prompts", "completions") and not proposed and columns - known:
        return {"extra": "ignore"}
    if name == "comparison":
        place = proposed.get("winner", "winner")
        said = {str(value).removesuffix(".0") for row in rows if (value := mapping.value_at(row.data, place)) is not None}
        from_zero = proposed.get("completion_a", "").endswith("0")
        if "0" in said and said <= {"0", "1", "", "tie"} and (from_zero or len(rows) >= 5):
            return {"first": "0"}
    return {}
