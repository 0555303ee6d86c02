"""The data types of TRL: preference, unpaired preference, language modelling and prompt-completion."""

from collections.abc import Mapping
from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, Options, by_row
from labeling.imports.formats.checks import (
    MAX_ID,
    RowRejected,
    as_json,
    clean,
    common_turns,
    completion_of,
    flag_of,
    kind_of,
    loose_origin_of,
    make_record,
    messages_of,
    number_of,
    preferred,
    prompt_of,
    short_text,
    time_of,
)
from labeling.imports.formats.own import sampling_of
from labeling.imports.formats.transcripts import EARLY, is_transcript, parted, prompt_in, turns_of
from labeling.imports.records import Message, Record, Text, Vote

PROMPT = Column("prompt", "a text, or a list of messages that ends with the user's")
WHO = (
    Column("annotator", "who said so"),
    Column("annotator_kind", "human, simulated or model"),
    Column("at", "when it was said"),
    Column("id", "your own name of the prompt"),
    Column("source", "where it comes from"),
    Column("licence", "under which licence"),
    Column("tags", "a list of tags"),
    Column("group_id", "what stays in one split"),
)
KIND = Option(
    "annotator_kind", "Who judged, where the rows do not say it.", "human", ("human", "model", "simulated")
)  # fmt: skip


def explicit_prompt(value: Any) -> list[Message]:
    """As `prompt_of`; a text may also be a transcript that ends where the assistant is to speak."""
    return prompt_of(prompt_in(value) or value)


def after_a_space(value: Any) -> Any:
    """A completion as text; the space that keeps it apart from a prompt of text belongs to neither."""
    return value[1:] if isinstance(value, str) and value.startswith(" ") else value


def vote_by(data: Mapping[str, Any], options: Options, judgement: dict[str, Any]) -> Vote:
    """The judgement with who made it, in columns that any of these tables may have."""
    return Vote(
        judgement,
        short_text(data.get("annotator"), "annotator", MAX_ID),
        kind_of(data.get("annotator_kind") or options.get("annotator_kind")),
        None,
        time_of(data.get("at"), "at"),
    )


# --- preference ---------------------------------------------------------------------------------
def read_preference(line: int, data: dict[str, Any], options: Options) -> Record:
    prompt, chosen, rejected = _sides(data, options)
    tie = flag_of(data.get("tie"), "tie")
    if tie is None:
        # What our own views say where others say tie: the probability that chosen is better.
        tie = number_of(data.get("soft_label"), "soft_label") == 0.5
    if not tie and chosen.content.strip() == rejected.content.strip():
        raise RowRejected("chosen and rejected: are the same text, so that none can be the better one")
    judgement: dict[str, Any] = {"ranking": preferred(None if tie else 0)}
    if not tie and (strength := number_of(data.get("strength"), "strength")) is not None:
        if strength not in (1, 2, 3):
            raise RowRejected("strength: must be 1 (slightly), 2 (better) or 3 (much better)")
        judgement["strength"] = int(strength)
    if ratings := _ratings(data):
        judgement["ratings"] = ratings
    if isinstance(data.get("rationale"), str) and data["rationale"].strip():
        judgement["rationale"] = data["rationale"].strip()
    return make_record(line, prompt, [chosen, rejected], [vote_by(data, options, judgement)], **loose_origin_of(data))


def _sides(data: Mapping[str, Any], options: Options) -> tuple[list[Message], Text, Text]:
    """Prompt, chosen and rejected, whether the prompt stands apart or begins both sides."""
    sides = {side: as_json(data.get(side), list) or data.get(side) for side in ("chosen", "rejected")}
    given = data.get("prompt")
    prompt: list[Message] | None = None
    if all(isinstance(side, list) for side in sides.values()) and (
        given in (None, "", []) or any(len(side) > 1 for side in sides.values())
    ):
        whole = {name: messages_of(side, name) for name, side in sides.items()}
        prompt, *texts = parted(whole["chosen"], whole["rejected"], options)
        if given not in (None, "", []):
            _check_same_prompt(given, prompt)
        sides = dict(zip(sides, texts, strict=True))
    elif given in (None, "", []):
        prompt, *texts = _parted_texts(sides["chosen"], sides["rejected"], options)
        sides = dict(zip(sides, texts, strict=True))
    else:
        prompt = explicit_prompt(given)
    chosen, rejected = (
        completion_of(
            after_a_space(sides[side]), side, options, model=data.get(f"{side}_model"), model_where=f"{side}_model"
        )
        for side in sides
    )  # fmt: skip
    return prompt, chosen, rejected


def _check_same_prompt(given: Any, prompt: list[Message]) -> None:
    """Sides that hold the conversation too must hold the prompt that stands beside them."""
    beside = explicit_prompt(given)
    if common_turns(beside, prompt) == len(beside) or common_turns(beside[-1:], prompt[-1:]):
        return
    without_system = [message for message in prompt if message["role"] != "system"]
    if not common_turns(beside, without_system):
        raise RowRejected("chosen and rejected: hold a whole conversation that does not begin with prompt")


def _parted_texts(chosen: Any, rejected: Any, options: Options) -> tuple[list[Message], str, str]:
    """Two texts that begin alike: what they share, cut back to a whole word, is the prompt.

    The space between them goes with the completions, as in TRL's own examples.
    """
    clean(chosen, "chosen")
    clean(rejected, "rejected")
    if is_transcript(chosen) and is_transcript(rejected):
        return parted(turns_of(chosen, "chosen"), turns_of(rejected, "rejected"), options)
    if chosen == rejected:
        raise RowRejected("chosen and rejected: are the same text, so that none can be the better one")
    n = next((at for at, (ours, theirs) in enumerate(zip(chosen, rejected, strict=False)) if ours != theirs), None)
    n = min(len(chosen), len(rejected)) if n is None else n
    while n and not chosen[n - 1].isspace():
        n -= 1
    n = len(chosen[:n].rstrip())
    if not chosen[:n].strip():
        raise RowRejected("prompt: is missing, and chosen and rejected do not begin alike")
    return [{"role": "user", "content": chosen[:n]}], chosen[n:], rejected[n:]


def _ratings(data: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Scores of the two sides; a margin as a rating of the chosen one, by which it is above the rejected one's 0.

    A margin of 0 says nothing: TRL wants one in every row or in none.
    """
    ratings: dict[str, dict[str, float]] = {"a": {}, "b": {}}
    for key, side in (("a", "chosen"), ("b", "rejected")):
        for name in (f"{side}_score", f"score_{side}", f"{side}_rating"):
            if (score := number_of(data.get(name), name)) is not None:
                ratings[key]["score"] = score
    if margin := number_of(data.get("margin"), "margin"):
        ratings["a"]["margin"], ratings["b"]["margin"] = margin, 0
    return {key: axes for key, axes in ratings.items() if axes}


# --- unpaired -----------------------------------------------------------------------------------
def read_unpaired(line: int, data: dict[str, Any], options: Options) -> Record:
    if "completions" in data and "labels" in data:
        raise RowRejected(
            "completions and labels: are steps of one solution (TRL's stepwise supervision), which Prefloop has no judgement for"
        )
    label = flag_of(data.get("label"), "label")
    if label is None:
        raise RowRejected("label: must be true or false")
    completion = completion_of(
        after_a_space(data.get("completion")), "completion", options, model=data.get("model"), model_where="model"
    )
    return make_record(
        line, explicit_prompt(data.get("prompt")), [completion],
        [vote_by(data, options, {"acceptable": {"a": label}})], **loose_origin_of(data),
    )  # fmt: skip


# --- supervised ---------------------------------------------------------------------------------
def read_sft(line: int, data: dict[str, Any], options: Options) -> Record:
    """`source` is ours where it says what the text is: a correction or demonstration was written by an annotator."""
    if "completions" in data and "labels" in data:
        raise RowRejected(
            "completions and labels: are steps of one solution (TRL's stepwise supervision), which Prefloop has no judgement for"
        )
    for column in ("messages", "conversations"):
        if data.get(column) not in (None, "", []):
            messages = messages_of(data[column], column)
            if messages[-1]["role"] != "assistant" or len(messages) < 2:
                raise RowRejected(f"{column}: must end with the assistant's message, and hold the user's before it")
            prompt, content, where = messages[:-1], messages[-1]["content"], column
            if prompt[-1]["role"] != "user":
                raise RowRejected(f"{column}: the message before the last must be the user's")
            break
    else:
        if data.get("text") is not None and data.get("completion") is None:
            raise RowRejected("text: is one text without a prompt; Prefloop needs messages, or prompt and completion")
        prompt, content, where = explicit_prompt(data.get("prompt")), after_a_space(data.get("completion")), "completion"
    completion = completion_of(
        content, where, options, model=data.get("model"), model_where="model",
        sampling=sampling_of(data.get("sampling"), "sampling"),
    )  # fmt: skip
    written = data.get("source") in ("correction", "demonstration")
    origin = loose_origin_of({**data, "source": None} if written or data.get("source") == "best" else data)
    if written or options["as"] == "demonstration":
        # The text that a correction corrects is not in such a row, so it can only be kept as written from nothing.
        vote = vote_by(data, options, {"demonstration": completion.content})
        return make_record(line, prompt, [], [vote], **origin)
    return make_record(line, prompt, [completion], [], **origin)


FORMATS = (
    Format(
        name="preference",
        title="Preference (TRL)",
        describe="A prompt with a chosen and a rejected completion a row, as texts or as messages.",
        example={
            "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
            "chosen": [{"role": "assistant", "content": "Because air scatters blue light most."}],
            "rejected": [{"role": "assistant", "content": "It mirrors the sea."}],
            "margin": 1.5,
        },
        read=by_row(read_preference),
        columns=(
            PROMPT,
            Column("chosen", "the better completion; with the prompt before it if that has no column", required=True),
            Column("rejected", "the worse completion, likewise", required=True),
            Column("margin", "how much better, as a number: kept as the rating margin"),
            Column("strength", "how much better: 1, 2 or 3"),
            Column("tie", "true where neither is better"), Column("soft_label", "0.5 is a tie too"),
            Column("chosen_model"), Column("rejected_model"),
            Column("chosen_score", "kept as the rating score"), Column("rejected_score", "likewise"),
            Column("rationale", "why"),
            *WHO,
        ),
        options=(EARLY, KIND, EMPTY),
        mappable=True,
    ),
    Format(
        name="unpaired",
        title="Unpaired preference (TRL)",
        describe="A prompt with one completion and whether it is acceptable a row, as for KTO.",
        example={"prompt": "Why is the sky blue?", "completion": "It mirrors the sea.", "label": False},
        read=by_row(read_unpaired),
        columns=(
            Column("prompt", PROMPT.help, required=True),
            Column("completion", "a text, or a list of one message", required=True),
            Column("label", "true or false", required=True), Column("model", "which model wrote it"),
            *WHO,
        ),
        options=(KIND, EMPTY),
        mappable=True,
    ),
    Format(
        name="sft",
        title="Supervised (TRL)",
        describe="A conversation that ends with the assistant, or a prompt with its completion, a row.",
        example={
            "messages": [
                {"role": "user", "content": "Why is the sky blue?"},
                {"role": "assistant", "content": "Because air scatters blue light most."},
            ]
        },
        read=by_row(read_sft),
        columns=(
            Column("messages", "a conversation that ends with the assistant's message (or conversations)"),
            Column("prompt", "in the place of messages"), Column("completion", "in the place of messages"),
            Column("model", "which model wrote the completion"), Column("sampling", "its sampling parameters"),
            *WHO,
        ),
        options=(
            Option(
                "as",
                "What the last message is: a completion to be judged, or a demonstration that an annotator wrote.",
                "completion",
                ("completion", "demonstration"),
            ),
            KIND,
        ),
        mappable=True,
    ),
)  # fmt: skip
