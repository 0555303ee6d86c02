import pytest

from labeling.accounts.models import User
from labeling.projects.models import Membership
from tests import factories
from tests.api_caller import BASE, Caller, code_of


def test_a_person_makes_a_project_and_is_its_lead(stranger):
    answer = Caller(stranger).post("projects/", {"slug": "fresh", "name": "New", "guideline": "Be *kind*."})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["slug"], made["role"], made["overlap"]) == ("fresh", "lead", 1)
    assert isinstance(made["id"], str) and made["guideline"] == {"version": 1, "markdown": "Be *kind*."}
    assert made["form"]["ranking"] is True


def test_a_short_name_that_is_an_address_of_the_site_is_refused(stranger):
    answer = Caller(stranger).post("projects/", {"slug": "new", "name": "New"})
    assert answer.status_code == 400 and "slug" in answer.json()["error"]["fields"]


def test_a_simulated_account_makes_no_project(db):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    answer = Caller(robot).post("projects/", {"slug": "new", "name": "New"})
    assert answer.status_code == 403 and code_of(answer) == "permission_denied"


def test_wrong_fields_of_a_project_are_named(lead, project):
    caller = Caller(lead)
    taken = caller.post("projects/", {"slug": "support", "name": "x"})
    assert taken.status_code == 400 and "slug" in taken.json()["error"]["fields"]
    form = caller.post("projects/", {"slug": "a", "name": "x", "form": {"flags": "no list", "odd": 1}})
    assert form.status_code == 400 and set(form.json()["error"]["fields"]["form"]) == {"flags", "odd"}
    for body in ({"eval_share": "0.5"}, {"overlap": True}, {"overlap": 10**30}, {"name": 5}, {"eval_share": 2}):
        answer = caller.patch("projects/support/", body)
        assert answer.status_code == 400, body


def test_projects_are_listed_to_their_members_page_by_page(lead, stranger):
    for number in range(5):
        factories.make_project(lead, slug=f"p{number}")
    caller = Caller(lead)
    seen, path = [], "projects/?page_size=2"
    while path:
        page = caller.get(path).json()
        assert set(page) == {"next", "previous", "results"}
        seen += [row["slug"] for row in page["results"]]
        path = page["next"] and page["next"].split(BASE)[1]
    assert seen == ["p4", "p3", "p2", "p1", "p0"]
    assert Caller(stranger).get("projects/").json()["results"] == []


@pytest.mark.parametrize("cursor", ["x", "cD1hYmM=", "cD0tMQ==", "cD0xZTk=", "", "%00", "cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk="])
def test_a_made_up_cursor_is_no_server_error(lead, project, cursor):
    assert Caller(lead).get(f"projects/?cursor={cursor}").status_code in (200, 400)


def test_a_change_of_a_project_touches_what_was_given(lead, project):
    answer = Caller(lead).patch("projects/support/", {"overlap": 3, "guideline": "New words.", "state": "paused"})
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["overlap"], changed["state"], changed["name"]) == (3, "paused", "Support replies")
    assert changed["guideline"]["version"] == 2


def test_listing_projects_takes_as_many_queries_for_ten_as_for_one(lead, django_assert_max_num_queries):
    for number in range(10):
        factories.make_project(lead, slug=f"p{number}")
    caller = Caller(lead)
    caller.get("projects/")
    with django_assert_max_num_queries(2):
        assert len(caller.get("projects/").json()["results"]) == 10


def test_members_are_added_and_moved_by_the_lead(lead, project, stranger):
    caller = Caller(lead)
    added = caller.post("projects/support/members/", {"username": "stranger", "role": "annotator"})
    assert added.status_code == 201 and added.json()["pseudonym"].startswith("annotator-")
    moved = caller.post("projects/support/members/", {"username": "stranger", "role": "reviewer"})
    assert moved.status_code == 200 and moved.json()["role"] == "reviewer"
    assert {row["username"] for row in caller.get("projects/support/members/").json()["results"]} >= {"stranger", "lead"}
    unknown = caller.post("projects/support/members/", {"username": "no-one", "role": "annotator"})
    assert unknown.status_code == 400 and "username" in unknown.json()["error"]["fields"]
    last = caller.post("projects/support/members/", {"username": "lead", "role": "annotator"})
    assert last.status_code == 409 and code_of(last) == "last_lead"


def test_a_change_of_role_takes_effect_at_the_next_request(project, engineer):
    caller = Caller(engineer)
    assert caller.get("projects/support/snapshots/").status_code == 200
    Membership.objects.filter(user=engineer).update(role="annotator")
    assert caller.get("projects/support/snapshots/").status_code == 403
    Membership.objects.filter(user=engineer).delete()
    assert caller.get("projects/support/snapshots/").status_code == 404
