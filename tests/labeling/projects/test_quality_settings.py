import pytest

from labeling.projects.models import Membership
from labeling.projects.quality_settings import DEFAULT_QUALITY, complete_quality_settings, quality_of
from labeling.projects.services import add_member, change_project
from tests import factories
from tests.api_caller import Caller
from tests.labeling.projects.test_console import SETTINGS

ROUND = {"qualification": {"n": 3, "pass": 0.6}}


def test_nothing_said_gives_the_defaults_with_all_of_it_off():
    full, wrong = complete_quality_settings({})
    assert (full, wrong) == (DEFAULT_QUALITY, {})
    assert full["gold_rate"] == full["repeat_rate"] == full["qualification"]["n"] == 0


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ([], "quality"),
        ({"colour": 1}, "colour"),
        ({"gold_rate": 0.6}, "gold_rate"),
        ({"gold_rate": True}, "gold_rate"),
        ({"repeat_rate": "0.1"}, "repeat_rate"),
        ({"gold_window": 2}, "gold_window"),
        ({"requeue_days": 1.5}, "requeue_days"),
        ({"gold_least": 30}, "gold_least"),
        ({"qualification": 5}, "qualification"),
        ({"qualification": {"n": 3, "of": 5}}, "qualification"),
        ({"qualification": {"n": 3, "pass": 2}}, "qualification"),
    ],
)
def test_what_is_wrong_is_named(sent, field):
    assert list(complete_quality_settings(sent)[1]) == [field]


def test_leads_set_it_over_rest_and_annotators_are_not_told(project, lead, annotator):
    caller = Caller(lead)
    answer = caller.patch("projects/support/", {"quality": {"gold_rate": 0.055, **ROUND}})
    assert answer.json()["quality"]["gold_rate"] == 0.055
    assert answer.json()["quality"]["gold_window"] == 20
    refused = caller.patch("projects/support/", {"quality": {"gold_rate": 2}})
    assert refused.status_code == 400 and "gold_rate" in refused.json()["error"]["fields"]["quality"]
    assert Caller(annotator).get("projects/support/").json()["quality"] is None


def test_leads_set_it_in_per_cents_and_finer_shares_outlive_the_form(client, project, lead):
    change_project(project=project, quality={"gold_rate": 0.055})
    client.force_login(lead)
    sent = SETTINGS | {"gold_per_cent": "6", "gold_window": "30", "qualification_n": "3", "qualification_per_cent": "60"}
    assert client.post("/projects/support/settings/", sent).status_code == 302
    project.refresh_from_db()
    full = quality_of(project.quality)
    assert (full["gold_rate"], full["gold_window"], full["qualification"]) == (0.055, 30, ROUND["qualification"])
    wrong = client.post("/projects/support/settings/", SETTINGS | {"gold_per_cent": "80"})
    assert wrong.status_code == 422


def test_only_new_annotators_begin_with_the_round(project, annotator):
    change_project(project=project, quality=ROUND)
    new, reviewer = factories.make_user("new"), factories.make_user("new-reviewer")
    assert add_member(project=project, user=new, role="annotator").state == Membership.State.QUALIFYING
    assert add_member(project=project, user=reviewer, role="reviewer").state == Membership.State.ACTIVE
    assert project.memberships.get(user=annotator).state == Membership.State.ACTIVE
    assert add_member(project=project, user=new, role="annotator").state == Membership.State.QUALIFYING
    assert add_member(project=project, user=new, role="reviewer").state == Membership.State.ACTIVE


def test_switching_the_round_off_lets_everyone_in(project):
    change_project(project=project, quality=ROUND)
    new = factories.make_user("new")
    add_member(project=project, user=new, role="annotator")
    change_project(project=project, quality={})
    assert project.memberships.get(user=new).state == Membership.State.ACTIVE
