"""Two published sets of several people's judgements on the same items: PandaLM's test set and SQuALITY's evaluation."""

import re
from collections.abc import Iterator
from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, Options, Part, by_row
from labeling.imports.formats.checks import (
    KEYS,
    MAX_ID,
    RowRejected,
    as_json,
    axis_name,
    clean,
    completion_of,
    loose_origin_of,
    make_record,
    number_of,
    preferred,
    prompt_of,
    ranking_of,
    short_text,
    storable,
)
from labeling.imports.records import Record, Rejected, Text, Vote
from labeling.projects.feedback import MAX_COMMENT, MAX_MARKS

ANNOTATOR = re.compile(r"annotator_?\d{1,3}")


# --- PandaLM ------------------------------------------------------------------------------------
def read_pandalm(line: int, data: dict[str, Any], options: Options) -> Record:
    models = _models(data.get("cmp_key"))
    completions = [
        completion_of(data.get(name), name, options, model=model, model_where="cmp_key")
        for name, model in zip(("response1", "response2"), models, strict=True)
    ]
    votes = []
    for name in sorted((name for name in data if ANNOTATOR.fullmatch(name)), key=lambda name: (len(name), name)):
        if (said := number_of(data[name], name)) is None:
            continue
        if said not in (0, 1, 2):
            raise RowRejected(f"{name}: must be 0 (a tie), 1 (the first is better) or 2")
        votes.append(Vote({"ranking": preferred({0: None, 1: 0, 2: 1}[int(said)])}, name))
    prompt = clean(data.get("instruction"), "instruction")
    if isinstance(data.get("input"), str) and data["input"].strip():
        prompt = f"{prompt}\n\n{storable(data['input'], 'input')}"
    origin = loose_origin_of(data)
    origin["external_id"] = short_text(data.get("idx"), "idx", MAX_ID) or origin["external_id"]
    return make_record(line, prompt_of([{"role": "user", "content": prompt}]), completions, votes, **origin)


def _models(value: Any) -> tuple[str, str]:
    """Names in the order first_second; not to be told apart where a name has an underscore itself."""
    first, _, second = value.partition("_") if isinstance(value, str) else ("", "", "")
    return (first, second) if second and "_" not in second else ("", "")


# --- SQuALITY -----------------------------------------------------------------------------------
def read_squality(rows: list[tuple[int, dict[str, Any]]], options: Options) -> Iterator[Part]:
    """A record a question. The texts of passage and question are not in the file, so the prompt names them only."""
    for line, data in rows:
        passage = short_text(data.get("passage-id"), "passage-id", MAX_ID)
        questions = as_json(data.get("questions"), dict)
        if not questions:
            raise RowRejected("questions: must be an object that is not empty")
        for number, systems in questions.items():
            try:
                yield _question(line, passage, number, systems, options)
            except RowRejected as error:
                yield Rejected(line, f"questions.{number[:60]}.{error}")


def _question(line: int, passage: str, number: str, systems: Any, options: Options) -> Record:
    if not isinstance(systems, dict) or len(systems) > len(KEYS):
        raise RowRejected(f"completions: must be an object of at most {len(KEYS)} systems")
    completions, said = [], {}
    for key, (system, given) in zip(KEYS, systems.items(), strict=False):
        if not isinstance(given, dict) or not isinstance(given.get("reviews", []), list):
            raise RowRejected(f"{system[:60]}: must be {{response, reviews}}")
        text = completion_of(given.get("response"), f"{system[:60]}.response", options, model=system, model_where="system")
        completions.append(text)
        for index, review in enumerate(given.get("reviews", [])):
            where = f"{system[:60]}.reviews[{index}]"
            if not isinstance(review, dict):
                raise RowRejected(f"{where}: must be an object")
            worker = short_text(review.get("worker_id"), f"{where}.worker_id", MAX_ID)
            if key in said.setdefault(worker, {}):
                raise RowRejected(f"{where}.worker_id: reviewed this twice")
            said[worker][key] = (review, where, text)
    votes = [Vote(judgement, worker) for worker, reviews in said.items() if (judgement := _reviewed(reviews, completions, options))]
    name = f"passage {passage}, question {number}"
    return make_record(
        line, prompt_of([{"role": "user", "content": f"SQuALITY {name}"}]), completions, votes,
        external_id=short_text(f"{passage}/{number}", "questions", MAX_ID), group=passage,
    )  # fmt: skip


def _reviewed(reviews: dict[str, tuple[dict[str, Any], str, Text]], completions: list[Text], options: Options) -> dict[str, Any]:
    judgement: dict[str, Any] = {"ratings": {}, "marks": {}}
    ranks = []
    for key, (review, where, text) in reviews.items():
        axes = {
            axis_name(name.removesuffix("-rating")): value
            for name in review
            if name.endswith("-rating") and (value := number_of(review[name], f"{where}.{name[:60]}")) is not None
        }
        if axes:
            judgement["ratings"][key] = axes
        if marks := _marks(review.get("annotations"), text.content):
            judgement["marks"][key] = marks
        ranks.append(number_of(review.get(f"{options['rank']}-rank"), f"{where}.{options['rank']}-rank"))
    if len(ranks) == len(completions) and None not in ranks:
        # Reviews of one person come in the order of the completions.
        judgement["ranking"] = ranking_of([-rank for rank in ranks if rank is not None])
    return {part: value for part, value in judgement.items() if value}


def _marks(annotations: Any, content: str) -> list[dict[str, Any]]:
    """Passages with a comment, where they are found in the completion as they are quoted."""
    marks = []
    for said in annotations if isinstance(annotations, list) else []:
        if not isinstance(said, dict) or not isinstance(selection := said.get("selection"), str) or not selection:
            continue
        start = content.find(selection)
        if start >= 0 and len(marks) < MAX_MARKS:
            marks.append({"start": start, "end": start + len(selection), "label": "comment"})
            comments = said.get("annotation")
            words = [text for text in comments if isinstance(text, str)] if isinstance(comments, list) else []
            if comment := storable("\n".join(words), "annotations").strip()[:MAX_COMMENT]:
                marks[-1]["comment"] = comment
    return marks


FORMATS = (
    Format(
        name="pandalm",
        title="PandaLM test set",
        describe="An instruction with two completions a row, and what each of several annotators said: 0 tie, 1 or 2.",
        example={
            "idx": 0, "cmp_key": "small-7b_tiny-7b", "instruction": "Explain it to a child.", "input": "Why is the sky blue?",
            "response1": "Because air scatters blue light most.", "response2": "It mirrors the sea.",
            "annotator1": 1, "annotator2": 1, "annotator3": 0,
        },
        read=by_row(read_pandalm),
        columns=(
            Column("instruction", "the prompt", required=True), Column("input", "put behind it"),
            Column("response1", required=True), Column("response2", required=True),
            Column("annotator1", "0 tie, 1 the first, 2 the second; likewise annotator2 and on"),
            Column("cmp_key", "the two models, first_second"), Column("idx"),
        ),
        options=(EMPTY,),
    ),
    Format(
        name="squality",
        title="SQuALITY human evaluation",
        describe="A passage a row with questions, the systems' summaries and what each reviewer said of them.",
        example={
            "passage-id": "1", "questions": {"0": {
                "small": {"response": "The crew lands.", "reviews": [
                    {"worker_id": "3", "overall-rating": 70, "overall-rank": 1, "annotations": []}]},
                "tiny": {"response": "They stay at home.", "reviews": [
                    {"worker_id": "3", "overall-rating": 20, "overall-rank": 2, "annotations": []}]},
            }},
        },
        read=read_squality,
        columns=(Column("passage-id", "what stays in one split", required=True), Column("questions", required=True)),
        options=(
            Option("rank", "Which of the ranks is the ranking.", "overall", ("overall", "correctness", "selection")),
            EMPTY,
        ),
    ),
)  # fmt: skip
