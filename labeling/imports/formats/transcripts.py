"""Conversations written as one text with marks of who speaks, and where two of them part."""

import re
from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, Options, by_row
from labeling.imports.formats.checks import (
    RowRejected,
    common_turns,
    completion_of,
    loose_origin_of,
    make_record,
    preferred,
    storable,
)
from labeling.imports.records import Message, Record, Vote

TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant|System): ?")
# Of prompts that are texts, as our own view preference_standard writes them.
PROMPT_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|User|Assistant|System): ?")
PROMPT = re.compile(r"\s*(?:Human|User|System):.*\n\nAssistant:\s*", re.DOTALL)
SPEAKER = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}

EARLY = Option(
    "early",
    "Pairs whose conversations part before the last turn: compare the first turns that differ, or reject the row.",
    "first_turn",
    ("first_turn", "reject"),
)


def is_transcript(text: Any) -> bool:
    return isinstance(text, str) and text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def prompt_in(text: Any) -> list[Message] | None:
    """The turns of a text that is a conversation up to where the assistant is to speak; None of other texts."""
    if not isinstance(text, str) or not PROMPT.fullmatch(text):
        return None
    return turns_of(text, "prompt", PROMPT_TURN)[:-1]


def turns_of(text: Any, where: str, mark: re.Pattern[str] = TURN) -> list[Message]:
    """The turns of a transcript, each as it stands behind its mark and one space. Only the last may be empty."""
    if not isinstance(text, str) or not text.strip():
        raise RowRejected(f"{where}: must be a text that is not empty")
    storable(text, where)
    pieces = mark.split(text)
    if pieces[0].strip():
        raise RowRejected(f"{where}: must begin with a turn, such as \\n\\nHuman:")
    if len(pieces) < 3:
        raise RowRejected(f"{where}: has no turns, such as \\n\\nHuman: and \\n\\nAssistant:")
    turns = [
        {"role": SPEAKER[speaker], "content": content}
        for speaker, content in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    for number, turn in enumerate(turns[:-1], 1):
        if not turn["content"].strip():
            raise RowRejected(f"{where}: turn {number} is empty")
    return turns


def parted(chosen: list[Message], rejected: list[Message], options: Options) -> tuple[list[Message], str, str]:
    """The prompt that two conversations share, and the first turns in which they differ.

    Both must be the assistant's. Where they go on after that, what was judged is more than these turns: see EARLY.
    """
    n = common_turns(chosen, rejected)
    if n == len(chosen) == len(rejected):
        raise RowRejected("chosen and rejected: are the same text, so that none can be the better one")
    if n in (len(chosen), len(rejected)):
        raise RowRejected("chosen and rejected: one ends where the other goes on, so there is nothing to compare")
    ours, theirs = chosen[n], rejected[n]
    if ours["role"] != "assistant" or theirs["role"] != "assistant":
        raise RowRejected(f"chosen and rejected: differ in turn {n + 1}, which is not the assistant's in both")
    if n == 0:
        raise RowRejected("chosen and rejected: share no prompt that they would answer")
    if chosen[n - 1]["role"] != "user":
        raise RowRejected("chosen and rejected: the prompt they share does not end with the user's message")
    if options["early"] == "reject" and max(len(chosen), len(rejected)) > n + 1:
        raise RowRejected(f"chosen and rejected: part in turn {n + 1}, before the last one")
    return chosen[:n], ours["content"], theirs["content"]


def read_hh(line: int, data: dict[str, Any], options: Options) -> Record:
    if "chosen" not in data and "transcript" in data:
        raise RowRejected("chosen: is missing; a transcript alone (a red-team attempt) holds nothing to compare")
    prompt, chosen, rejected = parted(
        turns_of(data.get("chosen"), "chosen"), turns_of(data.get("rejected"), "rejected"), options
    )
    completions = [completion_of(chosen, "chosen", options), completion_of(rejected, "rejected", options)]
    return make_record(line, prompt, completions, [Vote({"ranking": preferred(0)})], **loose_origin_of(data))


FORMATS = (
    Format(
        name="hh_rlhf",
        title="hh-rlhf transcripts",
        describe="Two whole conversations a row, as one text each with Human: and Assistant: before the turns.",
        example={
            "chosen": "\n\nHuman: Why is the sky blue?\n\nAssistant: Because air scatters blue light most.",
            "rejected": "\n\nHuman: Why is the sky blue?\n\nAssistant: It mirrors the sea.",
        },
        read=by_row(read_hh),
        columns=(
            Column("chosen", "the conversation with the better ending", required=True),
            Column("rejected", "the conversation with the worse ending", required=True),
        ),
        options=(EARLY, EMPTY),
        mappable=True,
    ),
)
