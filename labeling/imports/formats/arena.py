"""Chatbot Arena conversations and WebGPT comparisons: two completions and which one was better."""

from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, Options, by_row
from labeling.imports.formats.checks import (
    MAX_ID,
    RowRejected,
    as_json,
    clean,
    common_turns,
    completion_of,
    loose_origin_of,
    make_record,
    messages_of,
    number_of,
    prompt_of,
    ranking_of,
    short_text,
    shown,
    time_of,
)
from labeling.imports.formats.choices import Choice, choice_of
from labeling.imports.formats.transcripts import EARLY, parted
from labeling.imports.records import Message, Record, Vote

# A reply with one of these says who wrote it, so that the vote was not blind.
IDENTITIES = (
    "alibaba", "anthropic", "chatglm", "chatgpt", "claude", "deepseek", "gemini", "gpt-3", "gpt-4", "koala", "laion", "lamda", "llama",
    "lmsys", "mistral", "open assistant", "openai", "palm 2", "qwen", "uc berkeley", "vicuna", "zhipu",
)  # fmt: skip
DELETED = {"", "[deleted]", "deleted", "none", "null", "unknown", "anonymous"}


# --- Chatbot Arena ------------------------------------------------------------------------------
def read_arena(line: int, data: dict[str, Any], options: Options) -> Record:
    if "states" in data and "conversation_a" not in data:
        raise RowRejected("conversation_a: is missing; lines of the raw server log are not read, only cleaned conversations")
    sides = {
        side: messages_of(as_json(data.get(f"conversation_{side}"), list), f"conversation_{side}") for side in ("a", "b")
    }
    choice = _winner(data)
    if options["flagged"] == "reject" and _is_flagged(data):
        raise RowRejected("openai_moderation: flags the conversation")
    prompt, *texts = _turn(sides, options, tied=len(choice.ranking) == 1)
    if options["identities"] == "reject" and (word := _identity(texts)):
        raise RowRejected(f"conversation: a reply says who wrote it ({word})")
    completions = [
        completion_of(text, f"conversation_{side}", options, model=data.get(f"model_{side}"), model_where=f"model_{side}")
        for side, text in zip(sides, texts, strict=True)
    ]
    judge = short_text(data.get("judge"), "judge", MAX_ID)
    vote = Vote(
        choice.judgement(),
        "" if judge.casefold() in DELETED else judge,
        # The sets of the same makers that a model judged name it so.
        "model" if judge.casefold().startswith("gpt") else "human",
        ["a", "b"],
        time_of(data.get("tstamp"), "tstamp"),
    )
    origin = loose_origin_of(data)
    origin["external_id"] = short_text(data.get("question_id"), "question_id", MAX_ID) or origin["external_id"]
    if isinstance(language := data.get("language"), str) and 0 < len(language) <= 60:
        origin["tags"] = sorted({*origin["tags"], clean(language, "language")})
    return make_record(line, prompt, completions, [vote], **origin)


def _winner(data: dict[str, Any]) -> Choice:
    winner = data.get("winner")
    if winner is None:
        # As three columns of 0 and 1.
        won = [name for name in ("model_a", "model_b", "tie") if number_of(data.get(f"winner_{name}"), f"winner_{name}") == 1]
        winner = won[0] if len(won) == 1 else None
    names = [(str(data.get(name)),) if isinstance(data.get(name), str) else () for name in ("model_a", "model_b")]
    choice = choice_of(winner, 2) or choice_of(winner, 2, names)
    if choice is None:
        raise RowRejected(f"winner: must be model_a, model_b, tie or tie (bothbad), not {shown(winner)}")
    return choice


def _turn(sides: dict[str, list[Message]], options: Options, *, tied: bool) -> tuple[list[Message], str, str]:
    """The last turn before the threads part: later ones answer different conversations."""
    ours, theirs = sides.values()
    if tied and len(ours) > 1 and common_turns(ours, theirs) == len(ours) == len(theirs) and ours[-1]["role"] == "assistant":
        # Two models that said the same tie, as they should.
        return prompt_of(ours[:-1], "conversation_a"), ours[-1]["content"], theirs[-1]["content"]
    try:
        return parted(ours, theirs, options)
    except RowRejected as error:
        raise RowRejected(str(error).replace("chosen and rejected", "conversation_a and conversation_b")) from None


def _is_flagged(data: dict[str, Any]) -> bool:
    moderation = as_json(data.get("openai_moderation"), dict) or {}
    toxic = as_json(data.get("toxic_chat_tag"), dict) or {}
    return bool(moderation.get("flagged")) or any(isinstance(tag, dict) and tag.get("flagged") for tag in toxic.values())


def _identity(texts: list[str]) -> str:
    said = " ".join(texts).casefold()
    return next((word for word in IDENTITIES if word in said), "")


# --- WebGPT -------------------------------------------------------------------------------------
def read_webgpt(line: int, data: dict[str, Any], options: Options) -> Record:
    question = as_json(data.get("question"), dict) or {"full_text": data.get("question")}
    completions = [completion_of(data.get(f"answer_{n}"), f"answer_{n}", options) for n in (0, 1)]
    scores = [number_of(data.get(f"score_{n}"), f"score_{n}") for n in (0, 1)]
    if scores[0] is None or scores[1] is None:
        raise RowRejected(f"score_{0 if scores[0] is None else 1}: must be a number")
    judgement = {
        "ranking": ranking_of([scores[0], scores[1]]), "ratings": {"a": {"score": scores[0]}, "b": {"score": scores[1]}}
    }
    origin = loose_origin_of(data)
    origin["external_id"] = short_text(question.get("id"), "question.id", MAX_ID)
    if isinstance(dataset := question.get("dataset"), str) and 0 < len(dataset) <= 60:
        origin["tags"] = sorted({*origin["tags"], clean(dataset, "question.dataset")})
    prompt = prompt_of([{"role": "user", "content": question.get("full_text")}], "question.full_text")
    return make_record(line, prompt, completions, [Vote(judgement)], **origin)


FORMATS = (
    Format(
        name="arena",
        title="Chatbot Arena conversations",
        describe="Two conversations with two models a row, and which of them a visitor called better.",
        example={
            "question_id": "q1", "model_a": "alpaca-13b", "model_b": "koala-13b", "winner": "model_a", "judge": "arena_user_1",
            "conversation_a": [
                {"content": "Why is the sky blue?", "role": "user"},
                {"content": "Because air scatters blue light most.", "role": "assistant"},
            ],
            "conversation_b": [
                {"content": "Why is the sky blue?", "role": "user"}, {"content": "It mirrors the sea.", "role": "assistant"}
            ],
            "turn": 1, "language": "English", "tstamp": 1682351591.1,
        },
        read=by_row(read_arena),
        columns=(
            Column("conversation_a", "messages", required=True), Column("conversation_b", "messages", required=True),
            Column("winner", "model_a, model_b, tie or tie (bothbad)", required=True),
            Column("model_a"), Column("model_b"), Column("judge", "who voted"), Column("tstamp"),
            Column("question_id"), Column("language", "kept as a tag"),
        ),
        options=(
            EARLY,
            Option("identities", "Rows in which a reply names a well-known model or its maker.", "keep", ("keep", "reject")),
            Option("flagged", "Rows that the moderation beside them flags.", "keep", ("keep", "reject")),
            EMPTY,
        ),
    ),
    Format(
        name="webgpt",
        title="WebGPT comparisons",
        describe="A question with two answers a row, each with a score; scores of 0 are a tie.",
        example={
            "question": {"dataset": "eli5", "id": "q1", "full_text": "Why is the sky blue?"},
            "answer_0": "Because air scatters blue light most [1].", "score_0": 0.5,
            "answer_1": "It mirrors the sea.", "score_1": -0.5,
        },
        read=by_row(read_webgpt),
        columns=(
            Column("question", "{dataset, id, full_text}, or a text", required=True),
            Column("answer_0", required=True), Column("score_0", required=True),
            Column("answer_1", required=True), Column("score_1", required=True),
        ),
        options=(EMPTY,),
    ),
)  # fmt: skip
