import json

from labeling.annotation.services import submit_judgement, take_lease
from labeling.preferences.freezes import work_off_freezes
from labeling.preferences.models import Snapshot
from labeling.projects.services import change_project
from tests import factories

FORM = {
    "purposes": ["preference"],
    "consent": "not_withdrawn",
    "gold": "any",
    "ties": "drop",
    "votes": "majority",
    "pairs": "all",
    "corrections": "include",
    "adjudications": "use",
    "margins": "",
    "name": "first",
}


def freeze_on_page(client, **changes):
    """Send the form, let a worker freeze, and follow to where the page leads."""
    sent = client.post("/projects/support/snapshots/new/", FORM | changes)
    work_off_freezes()
    return client.get(sent["Location"], follow=True)


def test_counts_come_before_freezing_and_freezing_leads_to_the_snapshot(client, filled_project, engineer, annotator):
    factories.judge_all(filled_project, annotator)
    client.force_login(engineer)
    url = "/projects/support/snapshots/new/"
    answer = client.post(url, FORM | {"preview": "1"}, headers={"HX-Request": "true"})
    assert "<dt>judgements</dt><dd>5</dd>" in answer.content.decode() and "<dt>pairs</dt><dd>15</dd>" in answer.content.decode()
    assert not Snapshot.objects.exists()
    answer = freeze_on_page(client)
    assert answer.context["snapshot"].n_pairs == 15
    assert "CC0-1.0" in answer.content.decode()


def test_wrong_margins_and_nothing_to_freeze_are_said(client, filled_project, lead):
    client.force_login(lead)
    answer = client.post("/projects/support/snapshots/new/", FORM | {"margins": "a lot"})
    assert answer.status_code == 422
    assert "margins" in answer.context["form"].errors
    answer = freeze_on_page(client)
    assert "Nothing is judged yet" in answer.content.decode()


def test_a_reviewer_reads_snapshots_and_freezes_none(client, filled_project, reviewer, annotator):
    factories.judge_all(filled_project, annotator)
    client.force_login(reviewer)
    assert client.post("/projects/support/snapshots/new/", FORM).status_code == 403


def test_views_are_downloaded_by_readers_alone(client, filled_project, lead, reviewer, annotator):
    factories.judge_all(filled_project, annotator)
    client.force_login(lead)
    freeze_on_page(client)
    client.force_login(reviewer)
    answer = client.get("/projects/support/snapshots/1/votes.train.jsonl")
    rows = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]
    assert all(row["annotator"].startswith("annotator-") for row in rows)
    assert "support-1-votes.train.jsonl" in answer["Content-Disposition"]
    for wrong in ("nothing.train.jsonl", "votes.both.jsonl", "votes.train.xlsx"):
        assert client.get(f"/projects/support/snapshots/1/{wrong}").status_code == 404
    client.force_login(annotator)
    assert client.get("/projects/support/snapshots/1/votes.train.jsonl").status_code == 404


def test_the_list_takes_as_many_queries_for_thirty_as_for_three(client, project, lead, django_assert_max_num_queries):
    def add(numbers: range) -> None:
        for number in numbers:
            Snapshot.objects.create(
                project=project, number=number, content_hash=str(number), n_judgements=1, n_pairs=1, created_by=lead
            )

    client.force_login(lead)
    add(range(1, 4))
    with django_assert_max_num_queries(40) as few:
        client.get("/projects/support/snapshots/")
    add(range(4, 31))
    with django_assert_max_num_queries(len(few)):
        assert len(client.get("/projects/support/snapshots/").context["page"]["rows"]) == 30


def test_a_snapshot_without_pairs_says_what_it_holds_and_offers_no_training(client, project, lead, annotator):
    change_project(project=project, form={"ranking": False, "acceptable": True})
    factories.fill_project(project, 6)
    while lease := take_lease(project=project, annotator=annotator):
        submit_judgement(lease=lease, submission_key=str(lease.pk), body={"acceptable": {"a": True, "b": False}})
    client.force_login(lead)
    preview = client.post("/projects/support/snapshots/new/", FORM | {"preview": "1"}, headers={"HX-Request": "true"})
    assert "6 accept or refuse: no pairs to compare" in preview.content.decode()
    page = freeze_on_page(client).content.decode()
    assert "No pairs" in page and "12 times acceptable or not" in page and "Train on it" not in page
    answer = client.get("/projects/support/snapshots/1/unpaired.train.parquet")
    assert answer.status_code == 200 and b"".join(answer.streaming_content)[:4] == b"PAR1"
