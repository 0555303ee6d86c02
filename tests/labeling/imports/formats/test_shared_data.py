"""Real sets, read whole. Their texts are never shown: a failing assertion counts, it quotes nothing."""

import json
from collections import Counter

import pytest

from labeling.imports import mapping
from labeling.imports.formats import FORMATS
from labeling.imports.recognition import recognise
from labeling.imports.records import Record, Rejected
from tests.labeling.imports.formats.reading import n_pairs, shared_file, shared_rows

FILES = {
    "hh-rlhf/harmless-mild.jsonl.gz": "hh_rlhf",
    "oasst/ranked-trees.jsonl.gz": "oasst",
    "oasst/prompts.jsonl": "prompts",
    "oasst/completions.jsonl.gz": "completions",
    "pandalm/testset-v1.jsonl.gz": "pandalm",
    "squality/human-eval.jsonl.gz": "squality",
    "llmbar/pairs.jsonl": "comparison",
    "llmbar/mtbench-majority.jsonl": "comparison",
    "self-instruct/seed-tasks.jsonl": "prompts",
}


def read(name: str, format: str, columns: dict[str, str] | None = None, **options: str) -> tuple[list[Record], list[Rejected]]:
    rows = mapping.mapped(shared_rows(name), columns or {}, FORMATS[format])
    found = list(FORMATS[format].records(rows, options))
    return [part for part in found if isinstance(part, Record)], [part for part in found if isinstance(part, Rejected)]


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_recognised_for_what_it_is_and_read_so(name):
    rows = shared_rows(name)
    seen = recognise(rows[:50], kind="jsonl", filename=name)
    assert seen.format == FILES[name]
    assert seen.reasons
    taken, rejected = read(name, seen.format, seen.mapping, **seen.options)
    assert len(taken) >= len({part.line for part in taken}) >= 0.98 * len(rows)
    # Six answers of the PandaLM set are empty.
    assert len(rejected) == (6 if seen.format == "pandalm" else 0)


@pytest.mark.parametrize("format", ["hh_rlhf", "preference"])
def test_all_637_pairs_of_hh_rlhf_are_taken_with_one_prompt_and_two_completions(format):
    taken, rejected = read("hh-rlhf/harmless-mild.jsonl.gz", format)
    assert (len(taken), len(rejected)) == (637, 0)
    for row, record in zip(shared_rows("hh-rlhf/harmless-mild.jsonl.gz"), taken, strict=True):
        assert len(record.completions) == 2
        assert record.votes[0].judgement == {"ranking": [["a"], ["b"]]}
        for side, completion in zip(("chosen", "rejected"), record.completions, strict=True):
            names = {"user": "Human", "assistant": "Assistant"}
            turns = [*record.prompt, {"role": "assistant", "content": completion.content}]
            again = "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)
            same = again == row.data[side]
            assert same, f"row {row.line} is not what it was when put together again"


def test_the_ranked_sets_and_pairs_of_open_assistant_are_as_many_as_there_should_be():
    counts = json.loads(shared_file("fixtures/oasst-counts.json").read_text())
    taken, rejected = read("oasst/ranked-trees.jsonl.gz", "oasst")
    assert rejected == []
    assert len({record.group for record in taken}) <= counts["trees"] == len(shared_rows("oasst/ranked-trees.jsonl.gz"))
    assert len(taken) == counts["ranked_sibling_sets"]
    assert sum(map(n_pairs, taken)) == counts["pairs_implied"]


def test_every_vote_on_pandalm_is_what_its_annotator_said():
    taken, rejected = read("pandalm/testset-v1.jsonl.gz", "pandalm", empty="(no answer)")
    assert (len(taken), rejected) == (464, [])
    said = {
        (item["item"], item["annotator"]): item["label"]
        for item in json.loads(shared_file("fixtures/pandalm.json").read_text())["records"]
    }
    label = {"[['a', 'b']]": 0, "[['a'], ['b']]": 1, "[['b'], ['a']]": 2}
    read_again = {
        (record.external_id, vote.annotator): label[str(vote.judgement["ranking"])] for record in taken for vote in record.votes
    }
    assert len(read_again) == 464 * 3
    # The fixture holds the complete design and, apart, one with gaps.
    assert all(read_again[key] == value for key, value in said.items())
    assert all(completion.model for record in taken for completion in record.completions)


def test_without_a_word_for_it_an_empty_answer_of_pandalm_is_a_rejected_row():
    taken, rejected = read("pandalm/testset-v1.jsonl.gz", "pandalm")
    assert (len(taken), len(rejected)) == (458, 6)
    assert {part.reason for part in rejected} == {"response2: must be a text that is not empty"}


def test_all_540_reviews_of_squality_are_ratings_and_ranks():
    taken, rejected = read("squality/human-eval.jsonl.gz", "squality")
    assert (len(taken), rejected) == (60, [])
    assert len({record.group for record in taken}) == 12
    votes = [vote for record in taken for vote in record.votes]
    assert len(votes) == 180
    assert sum(len(vote.judgement["ratings"]) for vote in votes) == 540
    assert all(len(vote.judgement["ranking"]) == 3 for vote in votes)
    assert Counter(vote.annotator for vote in votes) == {"3": 55, "6": 50, "2": 40, "8": 35}
    fixture = json.loads(shared_file("fixtures/squality.json").read_text())
    place = {}
    for record in taken:
        for vote in record.votes:
            for rank, (key,) in enumerate(vote.judgement["ranking"], 1):
                place[f"{record.external_id}/{record.completions['abc'.index(key)].model}", f"w{vote.annotator}"] = rank
    assert all(place[item["item"], item["annotator"]] == item["label"] for item in fixture["rank_records"])


@pytest.mark.parametrize(("name", "n"), [("llmbar/pairs.jsonl", 213), ("llmbar/mtbench-majority.jsonl", 101)])
def test_llmbar_is_a_comparison_whose_columns_go_by_other_names(name, n):
    rows = shared_rows(name)
    columns = mapping.propose(list(rows[0].data), "comparison")
    taken, rejected = read(name, "comparison", columns)
    assert (len(taken), rejected) == (n, [])
    for row, record in zip(rows, taken, strict=True):
        assert record.votes[0].judgement["ranking"][0] == ["ab"[row.data["label"] - 1]]


def test_prompts_and_completions_of_open_assistant_and_self_instruct_are_all_read():
    prompts, rejected = read("oasst/prompts.jsonl", "prompts")
    assert (len(prompts), rejected) == (163, [])
    completions, rejected = read("oasst/completions.jsonl.gz", "completions", {"sampling": "sampling_config"})
    assert (len(completions), rejected) == (1455, [])
    assert {len(record.completions) for record in completions} == {1}
    assert {record.completions[0].sampling["name"] for record in completions} == {"greedy", "k50", "beam5", "magic_numbers"}
    assert len({record.completions[0].model for record in completions}) == 3
    seeds, rejected = read("self-instruct/seed-tasks.jsonl", "prompts", extra="ignore")
    assert (len(seeds), rejected) == (100, [])
    written, rejected = read(
        "self-instruct/seed-tasks.jsonl", "sft", {"completion": "reference"}, **{"as": "demonstration"}
    )
    assert len(written) == 100
    assert all(record.votes[0].judgement.keys() == {"demonstration"} for record in written)
