"""A guideline that changed is read before the next new task; leads see what became of each version."""

import importlib

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.annotation.models import Judgement, Lease
from labeling.annotation.services import save_draft, take_lease
from labeling.projects.guidelines import changed_parts
from labeling.projects.models import Membership
from labeling.projects.services import publish_guideline
from labeling.quality.guideline_record import guideline_record
from tests import factories
from tests.api_caller import Caller, code_of
from tests.labeling.quality.judged import judge

BENCH = "/projects/support/bench/"
SCRIPT = {"X-Bench": "1"}
A, B = [[0], [1], [2]], [[2], [1], [0]]


@pytest.fixture
def tasks(project):
    return factories.fill_project(project, 4, overlap=2)


@pytest.fixture
def at_bench(client, annotator, tasks):
    client.force_login(annotator)
    return client


def change(project, text="Prefer *short*, kind and true."):
    return publish_guideline(project=project, markdown=text, created_by=None)


def read_by(user) -> int:
    return Membership.objects.get(user=user).guideline_read


def text_of(answer) -> str:
    return answer.content.decode()


# --- what changed -------------------------------------------------------------------------------
def test_the_words_that_went_and_came():
    assert changed_parts("Be short and kind.\n", "Be short and true.\n") == [
        ("same", "Be short and "), ("removed", "kind"), ("added", "true"), ("same", ".\n"),
    ]  # fmt: skip
    assert changed_parts("a\n", "a\n") == []
    assert changed_parts("a", "a\nb") == [("same", "a\n"), ("added", "b\n")]


def test_what_is_far_from_a_change_is_left_out():
    lines = [f"line {number}\n" for number in range(20)]
    parts = changed_parts("".join(lines), "".join([*lines[:10], "new\n", *lines[10:]]))
    assert parts == [
        ("gap", "…\n"), ("same", "line 8\nline 9\n"), ("added", "new\n"), ("same", "line 10\nline 11\n"), ("gap", "…"),
    ]  # fmt: skip


def test_passages_that_share_little_are_shown_whole():
    assert changed_parts("one two three\n", "quite another sentence here\n") == [
        ("removed", "one two three\n"), ("added", "quite another sentence here\n"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a " * 40_000, "b " * 40_000),
        ("x\n" * 50_000, "y\n" * 50_000),
        ("", "new"),
        ("old", ""),
        ("a\n\nb", "a\r\n\nc"),
    ],
)
def test_both_texts_can_be_put_together_again_where_nothing_is_left_out(before, after):
    parts = changed_parts(before, after)
    if not any(kind == "gap" for kind, _ in parts):
        for gone, text in (("added", before), ("removed", after)):
            whole = text.replace("\r\n", "\n").rstrip("\n") + "\n"
            assert "".join(part for kind, part in parts if kind != gone) == whole


# --- on the bench -------------------------------------------------------------------------------
def test_nobody_is_asked_about_the_version_they_begin_with(at_bench, annotator):
    assert "data-task=" in text_of(at_bench.get(BENCH))
    assert read_by(annotator) == 1


def test_a_change_is_read_before_the_next_new_task(at_bench, project, annotator):
    judge(project, annotator, A)
    change(project)
    page = text_of(at_bench.get(BENCH))
    assert "The guideline has changed" in page and "data-task=" not in page
    assert "<ins>, </ins>" in page or "<ins>" in page
    assert Lease.objects.filter(annotator=annotator, state="open").count() == 0
    assert at_bench.post(f"{BENCH}guideline/", {"version": "2"})["Location"] == BENCH
    assert read_by(annotator) == 2
    assert "data-task=" in text_of(at_bench.get(BENCH))
    assert Lease.objects.get(annotator=annotator, state="open").guideline.version == 2


def test_a_task_in_hand_is_finished_first_with_its_draft(at_bench, project, annotator):
    lease = take_lease(project=project, annotator=annotator)
    at_bench.get(BENCH)
    save_draft(lease=lease, draft={"rationale": "Half a thought"})
    change(project)
    page = text_of(at_bench.get(BENCH))
    assert f'data-task="{lease.pk}"' in page and "Half a thought" in page
    answer = at_bench.post(f"{BENCH}next/", {"holding": str(lease.pk)}, headers=SCRIPT).json()
    assert answer["task"] is None and "The guideline has changed" in answer["guideline"]
    form = {"submission_key": "key-12345678", "rank.a": "1", "rank.b": "2", "rank.c": "3"}
    done = at_bench.post(f"{BENCH}leases/{lease.pk}/submit/?next=1", form, headers=SCRIPT).json()
    assert (done["state"], done["next"]) == ("saved", None) and "guideline" in done
    assert Judgement.objects.get().guideline.version == 1
    assert at_bench.post(f"{BENCH}guideline/", {"version": "2"}, headers=SCRIPT).json() == {"state": "read"}
    assert at_bench.post(f"{BENCH}next/", headers=SCRIPT).json()["task"]


def test_whoever_worked_under_an_old_version_is_asked_about_all_that_changed(at_bench, project, annotator):
    judge(project, annotator, A)
    Membership.objects.update(guideline_read=0)
    change(project)
    change(project, "Something else altogether")
    assert "You worked under version 1" in text_of(at_bench.get(BENCH))


def test_a_newer_version_than_the_one_confirmed_is_asked_about_again(at_bench, project, annotator):
    at_bench.get(BENCH)
    Lease.objects.update(state="expired")
    change(project)
    change(project, "And another")
    at_bench.post(f"{BENCH}guideline/", {"version": "2"})
    assert "You worked under version 2" in text_of(at_bench.get(BENCH))
    at_bench.post(f"{BENCH}guideline/", {"version": "1"})
    assert read_by(annotator) == 2


@pytest.mark.parametrize("version", ["", "0", "9", "x", "-1", "٢", "9" * 30])
def test_a_version_that_is_not_there_confirms_nothing(at_bench, project, annotator, version):
    at_bench.get(BENCH)
    change(project)
    assert at_bench.post(f"{BENCH}guideline/", {"version": version}, headers=SCRIPT).status_code == 422
    assert read_by(annotator) == 1


def test_a_project_without_a_guideline_asks_nobody(client, annotator, lead):
    project = factories.make_project(lead, slug="bare", members={annotator: "annotator"})
    project.guidelines.all().delete()
    client.force_login(annotator)
    assert client.get("/projects/bare/bench/").status_code == 200


def test_what_a_lead_wrote_is_not_run(at_bench, project, annotator):
    at_bench.get(BENCH)
    Lease.objects.update(state="expired")
    change(project, "Prefer <script>alert(1)</script> *short* and kind.")
    assert "<script>alert" not in text_of(at_bench.get(BENCH))


def test_reading_the_newest_costs_no_query(at_bench, project):
    at_bench.get(BENCH)
    with CaptureQueriesContext(connection) as with_guideline:
        at_bench.get(BENCH)
    assert not any('FROM "projects_guideline"' in query["sql"] for query in with_guideline)


def test_members_who_judged_are_taken_to_have_read_what_they_judged_under(project, annotator, other_annotator, tasks):
    judge(project, annotator, A)
    change(project)
    judge(project, annotator, A)
    change(project, "Third")
    Membership.objects.update(guideline_read=0)
    importlib.import_module("labeling.annotation.migrations.0007_members_have_read_what_they_work_under").forwards(
        apps, None
    )
    assert (read_by(annotator), read_by(other_annotator)) == (2, 0)


# --- over REST ----------------------------------------------------------------------------------
def test_a_program_says_what_it_read_and_is_never_stopped(project, annotator, tasks, engineer):
    caller = Caller(annotator)
    change(project)
    lease = caller.post("projects/support/leases/")
    assert (lease.status_code, lease.json()["guideline"]["version"]) == (201, 2)
    answer = caller.put("projects/support/guideline/read/", {"version": 2})
    assert (answer.status_code, answer.json()) == (200, {"read": 2, "newest": 2})
    assert caller.put("projects/support/guideline/read/", {"version": 1}).json()["read"] == 2
    for body in ({}, {"version": 3}, {"version": "2"}, {"version": 0}, {"version": 2, "user": 1}):
        wrong = caller.put("projects/support/guideline/read/", body)
        assert (wrong.status_code, code_of(wrong)) == (400, "invalid")


# --- for leads ----------------------------------------------------------------------------------
def test_each_version_has_its_readers_judgements_and_agreement(
    client, project, lead, annotator, other_annotator, tasks
):
    client.force_login(annotator)
    client.get(BENCH)
    for user, places in ((annotator, [A, A]), (other_annotator, [A, B])):
        for one in places:
            judge(project, user, one)
    change(project)
    for user in (annotator, other_annotator):
        judge(project, user, A)
    record = guideline_record(project)
    newest, first = record.versions
    assert (first.n_read, first.n_people, first.n_judgements) == (1, 4, 4)
    assert (first.agreement["value"], first.agreement["n"]) == (0.5, 6)  # three pairs alike, three not
    assert first.agreement["low"] < 0.5 < first.agreement["high"]
    assert (newest.n_read, newest.n_judgements, newest.agreement["value"]) == (0, 2, 1.0)
    assert record.unread == ["annotator", "lead", "other-annotator", "reviewer"]
    client.force_login(lead)
    page = text_of(client.get("/projects/support/guidelines/"))
    assert "Under each version" in page and "1 / 4" in page and "Not read v2 yet: annotator" in page


def test_the_record_takes_as_many_queries_for_many_versions(client, project, lead):
    client.force_login(lead)
    client.get("/projects/support/guidelines/")
    counts = []
    for n in (1, 5):
        for number in range(n):
            change(project, f"Text {n} {number}")
        with CaptureQueriesContext(connection) as queries:
            client.get("/projects/support/guidelines/")
        counts.append(len(queries))
    assert counts[0] == counts[1]
