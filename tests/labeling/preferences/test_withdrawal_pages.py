"""Recording and undoing a withdrawal on pages and over REST; the people's own word on theirs."""

import pytest

from labeling.accounts.models import User
from labeling.preferences.models import Withdrawal
from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import withdraw_person
from labeling.projects.models import Membership
from labeling.projects.services import add_member, pseudonym_of, remove_member
from tests import factories
from tests.api_caller import Caller, code_of
from training.registry.models import ModelVersion

NEW = "/projects/support/snapshots/withdrawals/new/"


@pytest.fixture
def frozen(project, annotator, lead):
    """A snapshot of six judgements, and a model made of it."""
    factories.fill_project(project, 6)
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead, name="first")
    ModelVersion.objects.create(
        key="support-dpo@1", name="support-dpo", version=1, kind="policy", project=project, folder="p", snapshot=snapshot
    )
    return snapshot


def test_the_page_names_snapshots_and_models_before_anything_is_recorded(client, frozen, project, annotator, lead):
    client.force_login(lead)
    page = client.get(f"{NEW}?person={annotator.username}").content.decode()
    assert "#1 · first" in page and "support-dpo@1" in page and not Withdrawal.objects.exists()
    answer = client.post(NEW, {"person": annotator.username, "prompt": "", "reason": "by letter"}, follow=True)
    assert "goes into no snapshot from now on" in answer.content.decode()
    withdrawal = Withdrawal.objects.get()
    assert withdrawal.annotator == annotator and withdrawal.by == lead and withdrawal.reason == "by letter"
    for path, words in (
        ("snapshots/", "holds withdrawn rows"), ("snapshots/1/", "6 judgements of 1 person"),
        ("models/", "of withdrawn rows"), (f"models/{ModelVersion.objects.get().pk}/", "withdrawn since: 6 judgements"),
        (f"people/{annotator.pk}/", "by letter"), ("snapshots/1/card/", "6 judgements of 1 person"),
    ):  # fmt: skip
        assert words in client.get(f"/projects/support/{path}").content.decode(), path
    client.post(f"/projects/support/snapshots/withdrawals/{withdrawal.pk}/undo/")
    assert "withdrawn rows" not in client.get("/projects/support/snapshots/").content.decode()


def test_a_prompt_is_removed_from_its_page(client, frozen, project, lead):
    client.force_login(lead)
    prompt = project.prompts.first()
    assert f"?prompt={prompt.pk}" in client.get(f"/projects/support/prompts/{prompt.pk}/").content.decode()
    assert "support-dpo@1" in client.get(f"{NEW}?prompt={prompt.pk}").content.decode()
    client.post(NEW, {"prompt": prompt.pk, "reason": "a telephone number"})
    assert "Removed" in client.get(f"/projects/support/prompts/{prompt.pk}/").content.decode()
    assert "was recorded before" in client.post(NEW, {"prompt": prompt.pk}, follow=True).content.decode()


def test_who_left_and_imported_annotators_are_named_by_pseudonym(client, frozen, project, annotator, lead):
    remove_member(project=project, user=annotator)
    client.force_login(lead)
    assert "#1 · first" in client.get(f"{NEW}?person={pseudonym_of(project, annotator)}").content.decode()
    for wrong in ("", "?person=nobody", "?person=stranger&prompt=1", "?prompt=999999", "?prompt=x"):
        assert client.get(NEW + wrong).status_code == 422, wrong


def test_a_lead_records_that_somebody_agreed_but_not_for_who_took_theirs_back(client, project, annotator, lead):
    client.force_login(lead)
    url = f"/projects/support/snapshots/withdrawals/people/{annotator.pk}/consent/"
    client.post(url)
    assert Membership.objects.get(project=project, user=annotator).consent == "given"
    assert "They agreed" in client.get(f"/projects/support/people/{annotator.pk}/").content.decode()
    withdraw_person(project=project, annotator=annotator, by=annotator)
    assert "only they can" in client.post(url, follow=True).content.decode()


def test_people_give_and_take_back_consent_beside_the_bench(client, frozen, project, annotator, engineer):
    client.force_login(annotator)
    url = "/projects/support/bench/consent/"
    page = client.get(url).content.decode()
    assert "You have not said yet" in page and "6 judgements of yours" in page and "1 model was made" in page
    assert "support-dpo" not in page
    assert "You agreed" in client.post(url, {"answer": "give"}, follow=True).content.decode()
    assert "took your judgements back" in client.post(url, {"answer": "withdraw", "reason": "why not"}, follow=True).content.decode()
    assert Withdrawal.objects.get().reason == "why not"
    assert "taken back" in client.get("/profile/").content.decode()
    client.post(url, {"answer": "give"})
    assert not Withdrawal.objects.filter(undone_at=None).exists()
    assert client.post(url, {"answer": "maybe"}).status_code == 422
    client.force_login(engineer)
    assert client.get(url).status_code == 404


def test_a_lead_s_withdrawal_is_not_the_person_s_to_undo(client, project, annotator, lead):
    withdraw_person(project=project, annotator=annotator, by=lead)
    client.force_login(annotator)
    url = "/projects/support/bench/consent/"
    page = client.post(url, {"answer": "give"}, follow=True).content.decode()
    assert "A lead took your judgements out of training" in page and "I agree" not in page


# --- over REST ----------------------------------------------------------------------------------
def test_a_dry_run_says_what_would_be_touched_and_recording_says_it_too(frozen, project, annotator, lead, reviewer):
    caller = Caller(lead)
    body = {"annotator": annotator.username, "reason": "by letter"}
    dry = caller.post("projects/support/withdrawals/", body | {"dry_run": True})
    assert dry.status_code == 200 and dry.json()["id"] is None and not Withdrawal.objects.exists()
    touched = {"snapshot": str(frozen.pk), "number": 1, "n_judgements": 6, "n_on_texts": 0, "models": ["support-dpo@1"]}
    assert dry.json()["touched"] == [touched]
    made = caller.post("projects/support/withdrawals/", body)
    assert made.status_code == 201 and made.json()["touched"] == [touched]
    assert made.json()["annotator"] == pseudonym_of(project, annotator)
    assert caller.post("projects/support/withdrawals/", body).status_code == 200
    assert Caller(reviewer).post("projects/support/withdrawals/", body).status_code == 403
    listed = Caller(reviewer).get("projects/support/withdrawals/").json()["results"]
    assert [row["id"] for row in listed] == [made.json()["id"]]
    held = Caller(reviewer).get(f"snapshots/{frozen.pk}/").json()["withdrawn"]
    assert held == {"n_judgements": 6, "n_by_people": 6, "n_people": 1, "n_on_prompts": 0, "n_prompts": 0, "n_on_texts": 0}
    undo = f"withdrawals/{made.json()['id']}/undo/"
    assert caller.post(undo).json()["undone_at"] and Caller(reviewer).get(f"snapshots/{frozen.pk}/").json()["withdrawn"] is None
    again = caller.post(undo)
    assert again.status_code == 409 and code_of(again) == "not_undone"


def test_over_rest_one_thing_is_named_and_it_is_there(project, annotator, lead):
    caller = Caller(lead)
    for body, field in (
        ({}, "annotator"), ({"annotator": "x", "prompt": "1"}, "annotator"), ({"annotator": "nobody"}, "annotator"),
        ({"prompt": "1x"}, "prompt"), ({"prompt": "99999999"}, "prompt"), ({"annotator": 5}, "annotator"), ({"odd": 1}, "odd"),
    ):  # fmt: skip
        answer = caller.post("projects/support/withdrawals/", body)
        assert answer.status_code == 400 and field in answer.json()["error"]["fields"], body


def test_over_rest_people_say_what_they_agree_to(project, annotator, engineer, lead):
    caller = Caller(annotator, scopes=["read", "annotate"])
    path = "projects/support/consent/"
    assert caller.get(path).json() == {"consent": None, "at": None, "by_a_lead": False}
    assert caller.call("PUT", path, {"consent": True}).json()["consent"] is True
    assert caller.call("PUT", path, {"consent": False, "reason": "so"}).json()["consent"] is False
    assert caller.call("PUT", path, {"consent": "yes"}).status_code == 400
    assert caller.call("PUT", path, {"consent": True}).json()["consent"] is True
    withdraw_person(project=project, annotator=annotator, by=lead)
    assert caller.call("PUT", path, {"consent": True}).json() | {"at": None} == {
        "consent": False, "at": None, "by_a_lead": True,
    }  # fmt: skip
    assert Caller(engineer).get(path).status_code == 403


def test_simulated_annotators_can_be_taken_out_too(frozen, project, lead):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    factories.fill_project(project, 8)
    add_member(project=project, user=robot, role="annotator")
    factories.judge_all(project, robot)
    assert Caller(lead).post("projects/support/withdrawals/", {"annotator": "robot"}).json()["touched"] == []
