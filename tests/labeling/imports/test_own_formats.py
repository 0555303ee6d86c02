import json

import pytest

from labeling.imports.errors import BadImport
from labeling.imports.services import import_rows
from labeling.imports.sources import Limits
from labeling.projects.models import Completion, Prompt
from tests import factories

pytestmark = pytest.mark.django_db


def take(project, *rows, format: str = "completions"):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return import_rows(project=project, format=format, lines=lines, created_by=project.created_by)


def figures(record) -> tuple[int, int, int]:
    return record.n_taken, record.n_duplicates, record.n_rejected


GOOD = {"prompt": "Where is it?", "completions": [{"content": "Here.", "model": "a@1"}, "There."]}


def test_good_rows_are_kept_and_bad_ones_named_with_line_and_reason(project):
    bad = {
        2: (b"not json", "is not JSON"),
        3: (b"[1]", "must be a JSON object"),
        4: ({"prompt": ""}, "prompt"),
        5: ({"prompt": "x", "completions": []}, "completions"),
        6: ({"prompt": "x", "completions": [{"content": "y", "score": 1}]}, "'score'"),
        7: ({"prompt": [{"role": "robot", "content": "x"}], "completions": ["y"]}, "prompt[0].role"),
        8: ({"prompt": [{"role": "assistant", "content": "x"}], "completions": ["y"]}, "last message"),
        9: ({"prompt": "x", "completions": ["y"], "extra": 1}, "'extra'"),
        10: (b'{"prompt": "\xff"}', "UTF-8"),
        11: (b'{"prompt": "x", "completions": ["y"], "tags": NaN}', "JSON"),
        12: (b'{"prompt": "half \\ud800", "completions": ["y"]}', "surrogate"),
        13: (b'{"prompt": "nul \\u0000", "completions": ["y"]}', "NUL"),
        14: (b"[" * 200_000, ""),
        15: (b'{"prompt": "' + b"x" * Limits().record_bytes + b'"}', "longer than"),
        16: ({"prompt": "x", "completions": ["y"], "tags": [""]}, "tags"),
    }
    record = take(project, GOOD, *(row for row, _ in bad.values()), {**GOOD, "prompt": "And now?"})
    assert figures(record) == (2, 0, len(bad))
    assert [row["line"] for row in record.rejected] == list(bad)
    for row in record.rejected:
        assert bad[row["line"]][1] in row["reason"], row
    assert Prompt.objects.count() == 2


def test_the_same_file_again_adds_nothing(project):
    rows = factories.completions_rows(7)
    assert figures(take(project, *rows)) == (7, 0, 0)
    again = take(project, *rows)
    assert figures(again) == (0, 7, 0)
    assert (Prompt.objects.count(), Completion.objects.count()) == (7, 21)
    assert again.sha256 == project.imports.order_by("pk").first().sha256


def test_rows_equal_in_content_are_one_prompt_within_and_across_batches(project):
    spaced = {**GOOD, "prompt": [{"role": "user", "content": "  Where is it? "}], "completions": ["Over there."]}
    record = take(project, GOOD, GOOD, spaced)
    assert Prompt.objects.count() == 1
    assert Completion.objects.count() == 3
    assert (record.n_taken, record.n_duplicates) == (2, 1)


def test_a_prompt_known_already_gets_the_completions_that_are_new(project):
    take(project, {"prompt": "Where is it?"}, format="prompts")
    assert figures(take(project, GOOD)) == (1, 0, 0)
    assert sorted(Completion.objects.values_list("content", "model_key")) == [("Here.", "a@1"), ("There.", "")]


def test_one_text_by_two_models_is_two_completions(project):
    take(project, {"prompt": "x", "completions": [{"content": "y", "model": "a@1"}, {"content": "y", "model": "b@1"}]})
    assert Completion.objects.count() == 2


def test_lineage_of_a_row_is_kept(project):
    row = {
        "id": 7, "prompt": "x", "source": "tickets", "licence": "CC0-1.0", "tags": ["b", "a", "a"],
        "completions": [{"content": "y", "model": "a@1", "sampling": {"seed": 3, "temperature": 0.7}}],
    }  # fmt: skip
    record = take(project, b"\xef\xbb\xbf" + json.dumps(row).encode(), b"", b"  \n")
    assert figures(record) == (1, 0, 0)
    prompt = Prompt.objects.get()
    assert (prompt.external_id, prompt.source, prompt.licence, prompt.tags) == ("7", "tickets", "CC0-1.0", ["a", "b"])
    assert prompt.batch == record
    assert prompt.completions.get().sampling == {"seed": 3, "temperature": 0.7}


def test_an_unknown_format_is_refused_as_a_whole(project):
    with pytest.raises(BadImport, match="prompts"):
        take(project, GOOD, format="pickle")


def test_other_projects_are_not_touched(project, stranger):
    other = factories.make_project(stranger, slug="other")
    take(project, GOOD)
    assert figures(take(other, GOOD)) == (1, 0, 0)
    assert other.prompts.count() == project.prompts.count() == 1
