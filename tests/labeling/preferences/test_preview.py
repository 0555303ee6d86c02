"""What a snapshot would hold, before it is frozen: held to what freezing then gives."""

import pytest

from labeling.annotation.models import Judgement
from labeling.preferences import preview
from labeling.preferences.choices import choices_of
from labeling.preferences.errors import BadFilter
from labeling.preferences.preview import preview_of
from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import withdraw_person
from labeling.projects.models import Prompt
from labeling.projects.services import pseudonym_of
from tests import factories
from tests.api_caller import Caller, code_of


@pytest.fixture
def judged(project, annotator, other_annotator):
    """Twelve prompts of two sources, seven judged by two people, the others by one."""
    factories.fill_project(project, 12, overlap=2)
    factories.judge_all(project, annotator)
    factories.judge_all(project, other_annotator, limit=7)
    first = project.prompts.order_by("pk").values_list("pk", flat=True)[:4]
    Prompt.objects.filter(pk__in=list(first)).update(source="letters", licence="", tags=["post", "delivery"])
    return project


@pytest.mark.parametrize("small", [preview.SMALL, 0])
@pytest.mark.parametrize("filters", [{}, {"sources": ["letters"]}, {"annotator_kinds": ["human"], "tags": ["delivery"]}])
def test_the_counts_are_those_of_the_snapshot_frozen_next(judged, lead, filters, small, monkeypatch):
    monkeypatch.setattr(preview, "SMALL", small)
    found = preview_of(judged, filters, {})
    snapshot = create_snapshot(project=judged, created_by=lead, filters=filters)
    files = snapshot.manifest["files"]
    assert found["judgements"] == snapshot.n_judgements
    for split, row in found["splits"].items():
        assert row["groups"] == snapshot.manifest["n_groups"][split]
        assert row["judgements"] == files[f"votes.{split}.jsonl"]["rows"]
        assert row["pairs"] == (files[f"pairs.{split}.jsonl"]["rows"] if small else None)
    assert found["pairs"] == (snapshot.n_pairs if small else None)
    assert found["kinds"] == [{"kind": "human", "judgements": snapshot.n_judgements, "annotators": 2}]


def test_each_filter_says_how_much_it_leaves_out(judged, annotator):
    filters = {"sources": ["letters"], "annotators": [pseudonym_of(judged, annotator)], "min_agreement": 1}
    found = preview_of(judged, filters, {})
    n_letters = Judgement.objects.filter(task__prompt__source="letters").count()
    assert found["judgements"] == 4
    assert {row["filter"]: row["judgements"] for row in found["left_out"]} == {
        "sources": 8, "annotators": n_letters - 4, "min_agreement": 0,
    }  # fmt: skip
    assert next(row for row in found["left_out"] if row["filter"] == "min_agreement")["pairs"] == 0
    assert preview_of(judged, {}, {})["left_out"] == []


def test_what_is_withdrawn_is_counted_apart(judged, annotator, lead):
    withdraw_person(project=judged, annotator=annotator, by=lead)
    found = preview_of(judged, {}, {})
    assert (found["judgements"], found["withdrawn"]) == (7, 12)


def test_the_counts_take_as_many_queries_whatever_is_judged(project, annotator, django_assert_max_num_queries):
    factories.fill_project(project, 3)
    factories.judge_all(project, annotator)
    with django_assert_max_num_queries(30) as few:
        preview_of(project, {}, {})
    factories.fill_project(project, 20)
    factories.judge_all(project, annotator)
    with django_assert_max_num_queries(len(few)):
        assert preview_of(project, {}, {})["holding"] == [{"part": "rank", "judgements": 20}]


def test_there_is_to_choose_what_was_judged_with_how_much(judged, annotator, other_annotator, django_assert_num_queries):
    with django_assert_num_queries(6):
        found = choices_of(judged)
    assert [(choice.label, choice.n) for choice in found["sources"]] == [("tests", 11), ("letters", 8)]
    assert [(choice.value, choice.label) for choice in found["licences"]] == [("CC0-1.0", "CC0-1.0"), ("", "unknown")]
    assert [(choice.label, choice.n) for choice in found["tags"]] == [("delivery", 19), ("post", 8)]
    assert [(choice.label, choice.n, choice.kind) for choice in found["annotators"]] == [
        ("annotator", 12, ""), ("other-annotator", 7, ""),
    ]  # fmt: skip
    assert [choice.label for choice in found["iterations"]] == ["#1"]


def test_over_rest_the_preview_takes_what_freezing_takes_and_freezes_nothing(judged, engineer, reviewer):
    caller = Caller(engineer)
    answer = caller.post("projects/support/snapshots/preview/", {"filters": {"sources": ["letters"]}})
    assert answer.status_code == 200 and answer.json()["judgements"] == 8 and judged.snapshots.count() == 0
    wrong = caller.post("projects/support/snapshots/preview/", {"policy": {"ties": "odd"}})
    assert wrong.status_code == 400 and "ties" in wrong.json()["error"]["fields"]
    unknown = caller.post("projects/support/snapshots/preview/", {"filters": {"annotators": ["nobody"]}})
    assert unknown.status_code == 400 and code_of(unknown) == "invalid"
    assert Caller(reviewer).post("projects/support/snapshots/preview/", {}).status_code == 403
    with pytest.raises(BadFilter):
        preview_of(judged, {"annotators": ["nobody"]}, {})
