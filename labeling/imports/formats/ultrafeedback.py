"""UltraFeedback: completions of several models, rated and scored by a model as judge."""

from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, Options, by_row
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
    prompt_of,
    ranking_of,
    short_text,
)
from labeling.imports.records import Record, Vote


def read_row(line: int, data: dict[str, Any], options: Options) -> Record:
    given = as_json(data.get("completions"), list)
    if not given:
        raise RowRejected("completions: must be a list that is not empty")
    if len(given) > len(KEYS):
        raise RowRejected(f"completions: a judgement can name at most {len(KEYS)}, this row has {len(given)}")
    completions, ratings, scores = [], {}, []
    for index, item in enumerate(given):
        where = f"completions[{index}]"
        if not isinstance(item, dict):
            raise RowRejected(f"{where}: must be an object")
        how = {name: item[name] for name in ("principle", "custom_system_prompt") if isinstance(item.get(name), str)}
        completions.append(
            completion_of(
                item.get("response"), f"{where}.response", options, model=item.get("model"), model_where=f"{where}.model",
                sampling={name: clean(text, f"{where}.{name}") for name, text in how.items() if text.strip()},
            )
        )  # fmt: skip
        if axes := _axes(item.get("annotations"), f"{where}.annotations"):
            ratings[KEYS[index]] = axes
        scores.append(number_of(item.get(options["score"]), f"{where}.{options['score']}"))
    judgement: dict[str, Any] = {"ratings": ratings} if ratings else {}
    # One score missing, and the others don't say where that completion stands.
    if len(scores) > 1 and None not in scores:
        judgement["ranking"] = ranking_of([score for score in scores if score is not None])
    votes = [Vote(judgement, short_text(options["annotator"], "annotator", MAX_ID), "model")] if judgement else []
    return make_record(
        line, prompt_of([{"role": "user", "content": data.get("instruction")}], "instruction"), completions, votes,
        **loose_origin_of(data),
    )  # fmt: skip


def _axes(annotations: Any, where: str) -> dict[str, float]:
    axes = {}
    for name, said in (as_json(annotations, dict) or {}).items():
        # Newer derivatives hold a list of one.
        said = said[0] if isinstance(said, list) and said else said
        if isinstance(said, dict) and (axis := axis_name(name)):
            rating = number_of(said.get("Rating"), f"{where}.{name[:60]}.Rating")
            if rating is not None:
                axes[axis] = rating
    return axes


FORMATS = (
    Format(
        name="ultrafeedback",
        title="UltraFeedback",
        describe="An instruction with several models' completions a row, rated on four axes by a model as judge.",
        example={
            "source": "sharegpt", "instruction": "Why is the sky blue?", "models": ["alpaca-7b", "bard"],
            "completions": [
                {"model": "alpaca-7b", "response": "It mirrors the sea.", "fine-grained_score": 2.25,
                 "annotations": {"helpfulness": {"Rating": "2"}, "truthfulness": {"Rating": "1"}, "honesty": {"Rating": "N/A"}}},
                {"model": "bard", "response": "Because air scatters blue light most.", "fine-grained_score": 4.75,
                 "annotations": {"helpfulness": {"Rating": "5"}, "truthfulness": {"Rating": "5"}, "honesty": {"Rating": "4"}}},
            ],
        },
        read=by_row(read_row),
        columns=(
            Column("instruction", "the prompt", required=True),
            Column("completions", "a list of {model, response, annotations, fine-grained_score}", required=True),
            Column("source"),
        ),
        options=(
            Option(
                "score",
                "Which score ranks the completions. The first release's overall_score of 10 was often wrong.",
                "fine-grained_score",
                ("fine-grained_score", "overall_score"),
            ),
            Option("annotator", "Which model judged.", "gpt-4"),
            EMPTY,
        ),
    ),
)  # fmt: skip
