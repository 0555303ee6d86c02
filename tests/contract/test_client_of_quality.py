"""The client's calls on members, quality, gold tasks and adjudication, against the site itself."""

import pytest

from labeling.quality.services import refresh_disagreements
from tests import factories
from tests.labeling.quality.judged import judge
from training.client import ApiError, Client

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client_of(live_server):
    opened = []

    def client(user):
        opened.append(Client(live_server.url, factories.token_for(user), retries=0))
        return opened[-1]

    yield client
    for one in opened:
        one.close()


@pytest.fixture
def disputed(project, annotator, other_annotator):
    """Two tasks that two people rank the other way round."""
    tasks = factories.fill_project(project, 2, overlap=2)
    for person, ranking in ((annotator, [[0], [1], [2]]), (other_annotator, [[2], [1], [0]])):
        judge(project, person, ranking)
        judge(project, person, ranking)
    refresh_disagreements()
    return tasks


def test_a_lead_pauses_sets_aside_and_reinstates(client_of, disputed, project, lead, annotator, engineer):
    client = client_of(lead)
    assert client.pause_member("support", annotator.username, "a word first")["state"] == "paused"
    assert client.set_aside("support", annotator.username, "careless", since="2020-01-01T00:00:00Z") == 2
    assert client.quality("support")["n_judgements"] == 2
    back = client.reinstate_member("support", annotator.username, restore=True)
    assert (back["state"], back["restored"], back["kept_aside"]) == ("active", 2, 0)
    with pytest.raises(ApiError, match="HTTP 403"):
        client_of(engineer).pause_member("support", annotator.username, "no")


def test_a_settled_task_is_the_consensus_and_is_held_against_annotators(client_of, disputed, reviewer, annotator):
    client = client_of(reviewer)
    task = client.task_to_settle(disputed[0].public_id)
    assert task["adjudication"] is None
    ids = [completion["id"] for completion in task["completions"]]
    done = client.adjudicate(task["id"], "ranking", ranking=[[id] for id in ids], rationale="as the guideline says")
    assert client.adjudicate(task["id"], "ranking", supersedes=done["id"], ranking=[[id] for id in ids])["supersedes"]
    with pytest.raises(ApiError, match="already_adjudicated"):
        client.adjudicate(task["id"], "left")
    [standing] = client.adjudications("support")
    assert standing["rationale"] == ""
    [found] = client.consensus("support", task["id"])
    assert found["ranking"] == [[id] for id in ids] and found["adjudication"]["by"] == standing["by"]
    assert len(list(client.consensus("support"))) == 2
    figures = client.quality("support")
    assert figures["adjudication"]["outcomes"] == {"ranking": 1, "left": 0, "unfit": 0}
    assert sorted(row["agreement_with_adjudication"]["value"] for row in figures["annotators"]) == [0.0, 1.0]


def test_gold_tasks_are_written_changed_retired_and_promoted(client_of, project, lead, annotator, other_annotator):
    client = client_of(lead)
    made = client.create_gold(
        "support", text="Where is my gold?", texts=["Here, take it.", "Away."], explanation="Be kind.",
        expected={"ranking": [["a"], ["b"]]},
    )  # fmt: skip
    assert made["expected"]["ranking"] == [["a"], ["b"]]
    changed = client.change_gold(made["id"], expected={"ranking": [["a", "b"]]}, retired=True)
    assert changed["expected"]["ranking"] == [["a", "b"]] and changed["retired_at"]
    factories.fill_project(project, 1, overlap=3)
    for person in (annotator, other_annotator, lead):
        factories.judge_all(project, person)
    [candidate] = client.gold_candidates("support")
    promoted = client.create_gold("support", task=candidate["task"])
    assert promoted["promoted_from"] == candidate["task"]
    assert [row["id"] for row in client.gold_tasks("support")] == [promoted["id"], made["id"]]
    with pytest.raises(ApiError, match="expected"):
        client.create_gold("support", text="Where?", texts=["Here.", "There."])


def test_what_a_model_thinks_is_recorded(client_of, disputed, project, engineer):
    [first, second, _third] = [str(pk) for pk in sorted(disputed[0].completions.values_list("pk", flat=True))]
    belief = {"task": disputed[0].public_id, "pairs": [{"better": first, "worse": second, "probability": 0.97}]}
    client = client_of(engineer)
    said = client.record_contradictions("support", "support-rm@1", [belief], calibrated=True)
    assert said["recorded"] == 1
    with pytest.raises(ApiError, match="tasks"):
        client.record_contradictions("support", "support-rm@1", [belief | {"task": "nothing"}], calibrated=True)
