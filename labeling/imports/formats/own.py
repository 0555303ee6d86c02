"""Prefloop's own rows: prompts, prompts with completions, votes, and the full row of a pair."""

from typing import Any

from labeling.imports.formats.base import EMPTY, EXTRA, Column, Format, Options, by_row
from labeling.imports.formats.checks import (
    KEYS,
    MAX_COMPLETIONS,
    MAX_ID,
    MAX_LICENCE,
    MAX_SOURCE,
    RowRejected,
    as_json,
    check_judgement,
    clean,
    completion_of,
    flag_of,
    kind_of,
    make_record,
    number_of,
    origin_of,
    preferred,
    prompt_of,
    refuse_unknown,
    renamed_vote,
    short_text,
    shown,
    storable_json,
    time_of,
)
from labeling.imports.records import Record, Text, Vote

ORIGIN = (
    Column("id", "your own name of the prompt, at most 120 characters"),
    Column("source", "where it comes from"),
    Column("licence", "under which licence"),
    Column("tags", "a list of tags"),
    Column("group_id", "what stays in one split"),
)
PROMPT = Column("prompt", "a text, or a list of messages that ends with the user's", required=True)
ONE = ("completion", "model", "sampling")


def _origin_columns(*own: str) -> set[str]:
    return {"prompt", *own, *(column.name for column in ORIGIN)}


# --- prompts and completions --------------------------------------------------------------------
def read_prompt(line: int, data: dict[str, Any], options: Options) -> Record:
    if options["extra"] == "refuse":
        refuse_unknown(data, _origin_columns())
    return make_record(line, prompt_of(data.get("prompt"), strict=_is_ours(options)), [], [], **origin_of(data))


def read_completions(line: int, data: dict[str, Any], options: Options) -> Record:
    if options["extra"] == "refuse":
        refuse_unknown(data, _origin_columns("completions", *ONE))
    prompt = prompt_of(data.get("prompt"), strict=_is_ours(options))
    if data.get("completions") is None and data.get("completion") is not None:
        value: Any = [{key: data[name] for name, key in zip(ONE, ("content", *ONE[1:]), strict=True) if name in data}]
        names = ("completion", "model", "sampling")
    else:
        value, names = data.get("completions"), None
    return make_record(line, prompt, _completions(value, options, names), [], **origin_of(data))


def _is_ours(options: Options) -> bool:
    """Whoever wants unknown fields refused wants a wrong message refused too."""
    return options["extra"] == "refuse"


def _completions(value: Any, options: Options, names: tuple[str, str, str] | None = None) -> list[Text]:
    value = as_json(value, list) if isinstance(value, str) else value
    if not isinstance(value, list) or not value:
        raise RowRejected("completions: must be a list that is not empty")
    if len(value) > MAX_COMPLETIONS:
        raise RowRejected(f"completions: at most {MAX_COMPLETIONS}, this row has {len(value)}")
    checked = []
    for index, item in enumerate(value):
        where = f"completions[{index}]"
        if isinstance(item, str):
            item = {"content": item}
        if not isinstance(item, dict):
            raise RowRejected(f"{where}: must be an object or a text")
        if options["extra"] == "refuse" and (unknown := sorted(set(item) - {"content", "model", "sampling"})):
            raise RowRejected(f"{where}: has an unknown field {shown(unknown[0])}")
        content_at, model_at, sampling_at = names or tuple(f"{where}.{part}" for part in ("content", "model", "sampling"))
        checked.append(
            completion_of(
                item.get("content"), content_at, options, model=item.get("model"), model_where=model_at,
                sampling=sampling_of(item.get("sampling"), sampling_at),
            )
        )  # fmt: skip
    return checked


def sampling_of(value: Any, where: str) -> dict[str, Any]:
    """Parameters as an object; a mere name of a configuration is kept as {"name"}."""
    if value is None or value == "":
        return {}
    found = as_json(value, dict)
    if found is None and isinstance(value, str):
        return {"name": short_text(value, where, MAX_SOURCE)}
    if found is None:
        raise RowRejected(f"{where}: must be an object")
    return storable_json(found, where)


# --- votes --------------------------------------------------------------------------------------
def read_vote(line: int, data: dict[str, Any], options: Options) -> Record:
    prompt = prompt_of(data.get("prompt"))
    value = as_json(data.get("completions"), list)
    if not isinstance(value, list):
        raise RowRejected("completions: must be a list")
    if len(value) > len(KEYS):
        raise RowRejected(f"completions: a judgement can name at most {len(KEYS)}, this row has {len(value)}")
    completions, names = [], {}
    for index, item in enumerate(value):
        where = f"completions[{index}]"
        if not isinstance(item, dict):
            raise RowRejected(f"{where}: must be an object")
        key = short_text(item.get("key"), f"{where}.key", 20) or KEYS[index]
        if key in names:
            raise RowRejected(f"{where}.key: {shown(key)} is there twice")
        names[key] = KEYS[index]
        completions.append(
            completion_of(
                item.get("content"), f"{where}.content", options, model=item.get("model"), model_where=f"{where}.model",
                sampling=sampling_of(item.get("sampling"), f"{where}.sampling"),
            )
        )  # fmt: skip
    vote = Vote(
        _judgement(data.get("judgement"), completions, names),
        short_text(data.get("annotator"), "annotator", MAX_ID),
        kind_of(data.get("annotator_kind")),
        _order(data.get("order_shown"), names),
        time_of(data.get("at"), "at"),
        _version(data.get("guideline_version"), "guideline_version"),
    )
    return make_record(
        line, prompt, completions, [vote],
        external_id=short_text(data.get("task"), "task", MAX_ID) or short_text(data.get("id"), "id", MAX_ID),
        iteration=_version(data.get("iteration"), "iteration") or 1,
        **{name: value for name, value in origin_of({**data, "id": None}).items() if name != "external_id"},
    )  # fmt: skip


def _judgement(value: Any, completions: list[Text], names: dict[str, str]) -> dict[str, Any]:
    """With our keys in the place of the row's. What is not said at all is left out."""
    body = as_json(value, dict)
    if body is None:
        raise RowRejected("judgement: must be an object")
    body = {part: said for part, said in body.items() if said not in (None, {}, [], "")}
    if all(name == key for name, key in names.items()):
        return body
    # Checked under the names of the row first, so that the reason speaks of those.
    ranking = body.get("ranking") or []
    for part in ("ratings", "acceptable", "flags", "corrections", "marks"):
        for key in body[part] if isinstance(body.get(part), dict) else ():
            if key not in names:
                raise RowRejected(f"judgement.{part}: names a completion {shown(key)} that is not there")
    if not isinstance(ranking, list) or not all(isinstance(group, list) for group in ranking):
        raise RowRejected("judgement.ranking: must be a list of groups, best first, each a list of keys")
    for key in (key for group in ranking for key in group):
        if not isinstance(key, str) or key not in names:
            raise RowRejected(f"judgement.ranking: names {shown(key)}, which this task doesn't have")
    named = [key for group in ranking for key in group]
    if len(set(named)) < len(named):
        raise RowRejected("judgement.ranking: names a completion twice")
    body = renamed_vote(Vote(body), names).judgement
    check_judgement(body, completions)
    return body


def _order(value: Any, names: dict[str, str]) -> list[str] | None:
    value = as_json(value, list)
    if not value:
        return None
    if not all(isinstance(key, str) and key in names for key in value) or len(set(value)) < len(names) or len(value) > len(names):
        raise RowRejected("order_shown: must name every completion once")
    return [names[key] for key in value]


def _version(value: Any, where: str) -> int | None:
    number = number_of(value, where)
    if number is None:
        return None
    if number != int(number) or not 1 <= number < 2**31:
        raise RowRejected(f"{where}: must be a whole number from 1")
    return int(number)


# --- pairs --------------------------------------------------------------------------------------
def read_pair(line: int, data: dict[str, Any], options: Options) -> Record:
    completions = [
        _from_source(data.get(side), side, data.get(f"{side}_source"), options) for side in ("chosen", "rejected")
    ]
    said = as_json(data.get("votes"), list) or []
    votes = [_vote_on_pair(vote, f"votes[{index}]") for index, vote in enumerate(said)]
    if not votes:
        tie = flag_of(data.get("tie"), "tie")
        judgement: dict[str, Any] = {"ranking": preferred(None if tie else 0)}
        if (strength := number_of(data.get("strength"), "strength")) in (1, 2, 3) and not tie:
            judgement["strength"] = int(strength)
        votes = [Vote(judgement)]
    if len(votes) == 1:
        _add_what_one_person_said(votes[0], data, completions[0].content)
    return make_record(
        line, prompt_of(data.get("prompt")), completions, votes,  # its id is the pair's, not the prompt's
        licence=short_text(data.get("licence"), "licence", MAX_LICENCE),
        group=short_text(data.get("group_id"), "group_id", MAX_ID),
        iteration=_version(data.get("iteration"), "iteration") or 1,
    )  # fmt: skip


def _from_source(content: Any, side: str, source: Any, options: Options) -> Text:
    source = as_json(source, dict) or {}
    sampling = sampling_of(source.get("sampling"), f"{side}_source.sampling")
    more = {key: source[key] for key in ("revision", "adapter", "seed") if source.get(key) is not None}
    return completion_of(
        content, side, options, model=source.get("model"), model_where=f"{side}_source.model", sampling={**sampling, **more}
    )


def _vote_on_pair(vote: Any, where: str) -> Vote:
    if not isinstance(vote, dict):
        raise RowRejected(f"{where}: must be an object")
    choice = vote.get("choice")
    if choice not in ("chosen", "rejected", "tie"):
        raise RowRejected(f"{where}.choice: must be chosen, rejected or tie")
    judgement: dict[str, Any] = {"ranking": preferred({"chosen": 0, "rejected": 1, "tie": None}[choice])}
    if (strength := number_of(vote.get("strength"), f"{where}.strength")) is not None:
        if strength not in (1, 2, 3):
            raise RowRejected(f"{where}.strength: must be 1, 2 or 3")
        judgement["strength"] = int(strength)
    if (seconds := number_of(vote.get("seconds"), f"{where}.seconds")) is not None:
        judgement["seconds"] = seconds
    return Vote(
        judgement,
        short_text(vote.get("annotator"), f"{where}.annotator", MAX_ID),
        kind_of(vote.get("annotator_kind"), f"{where}.annotator_kind"),
        None,  # the row says the order of the whole task, under keys that it does not explain
        time_of(vote.get("at"), f"{where}.at"),
        _version(vote.get("guideline_version"), f"{where}.guideline_version"),
    )


def _add_what_one_person_said(vote: Vote, data: dict[str, Any], chosen: str) -> None:
    """Reasons and an edit are of the row as a whole; where there is one vote, they are that person's."""
    reasons = as_json(data.get("reasons"), list) or []
    if len(reasons) == 1 and reasons[0]:
        vote.judgement["rationale"] = clean(reasons[0], "reasons[0]")
    if edited := as_json(data.get("edited"), list):
        text = completion_of(edited, "edited", {}).content
        if text != chosen:  # else the edit itself is the better one, and no edit of it
            vote.judgement["corrections"] = {"a": text}


FORMATS = (
    Format(
        name="prompts",
        title="Prompts",
        describe="A prompt a row, as a text or as messages.",
        example={"id": "q1", "prompt": "Why is the sky blue?", "source": "support desk", "licence": "CC0-1.0", "tags": ["physics"]},
        read=by_row(read_prompt),
        columns=(PROMPT, *ORIGIN),
        options=(EXTRA,),
        mappable=True,
    ),
    Format(
        name="completions",
        title="Prompts with completions",
        describe="A prompt a row with completions to be judged, or a row a completion.",
        example={
            "prompt": "Why is the sky blue?",
            "completions": [{"content": "Because air scatters blue light most.", "model": "small@2", "sampling": {"temperature": 0.7}}],
        },
        read=by_row(read_completions),
        columns=(
            PROMPT,
            Column("completions", "a list of texts or of {content, model, sampling}", required=True),
            Column("completion", "in the place of completions: one text"),
            Column("model", "which model wrote `completion`"),
            Column("sampling", "its sampling parameters, as an object or a name"),
            *ORIGIN,
        ),
        options=(EXTRA, EMPTY),
        mappable=True,
    ),
    Format(
        name="votes",
        title="Votes",
        describe="A judgement a row, as the view votes of a snapshot gives them.",
        example={
            "task": "t1",
            "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
            "completions": [
                {"key": "a", "content": "Because air scatters blue light most.", "model": "small@2"},
                {"key": "b", "content": "It mirrors the sea.", "model": None},
            ],
            "annotator": "p-17", "annotator_kind": "human",
            "judgement": {"ranking": [["a"], ["b"]], "strength": 2, "seconds": 12.5},
            "order_shown": ["b", "a"], "guideline_version": 2, "iteration": 1, "gold": False, "at": "2026-11-21T08:00:00Z",
        },
        read=by_row(read_vote),
        columns=(
            PROMPT,
            Column("completions", "a list of {key, content, model}", required=True),
            Column("judgement", "as in the REST API", required=True),
            Column("annotator"), Column("annotator_kind", "human, simulated or model"), Column("order_shown"),
            Column("at", "when it was said"), Column("guideline_version"), Column("iteration"), Column("task"),
            *ORIGIN[1:],
        ),
        options=(EMPTY,),
    ),
    Format(
        name="pairs",
        title="Pairs of a snapshot",
        describe="A pair a row with all that is known of it, as the view pairs of a snapshot gives them.",
        example={
            "id": "5f0c", "group_id": "9b1d", "iteration": 1,
            "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
            "chosen": [{"role": "assistant", "content": "Because air scatters blue light most."}],
            "rejected": [{"role": "assistant", "content": "It mirrors the sea."}],
            "strength": 2, "tie": False, "chosen_source": {"model": "small@2"}, "rejected_source": {"model": "small@1"},
            "votes": [{"annotator": "p-17", "annotator_kind": "human", "choice": "chosen", "strength": 2, "seconds": 12.5}],
            "licence": "CC0-1.0",
        },
        read=by_row(read_pair),
        columns=(
            PROMPT,
            Column("chosen", required=True), Column("rejected", required=True),
            Column("votes", "a list of {annotator, choice, strength, seconds, at}"), Column("strength"), Column("tie"),
            Column("chosen_source"), Column("rejected_source"), Column("edited"), Column("reasons"), Column("group_id"),
            Column("iteration"), Column("licence"),
        ),
        options=(EMPTY,),
    ),
)  # fmt: skip
