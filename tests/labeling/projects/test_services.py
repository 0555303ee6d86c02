import pytest
from django.core.exceptions import ValidationError

from labeling.live.models import Event
from labeling.projects.errors import BadForm, LastLead, SlugTaken
from labeling.projects.models import Membership, Project
from labeling.projects.selectors import current_guideline, projects_of
from labeling.projects.services import (
    add_member,
    change_project,
    create_project,
    pseudonym_of,
    publish_guideline,
    remove_member,
)
from tests import factories

pytestmark = pytest.mark.django_db


def test_the_maker_of_a_project_is_its_first_lead(lead, stranger):
    project = factories.make_project(lead)
    assert Membership.objects.get(project=project).role == "lead"
    assert list(projects_of(lead)) == [project]
    assert list(projects_of(stranger)) == []


def test_a_short_name_is_given_once(project, stranger):
    with pytest.raises(SlugTaken):
        create_project(slug=project.slug, name="Another", created_by=stranger)
    assert Project.objects.count() == 1


@pytest.mark.parametrize(
    "wrong",
    [{"overlap": 0}, {"lease_seconds": 5}, {"eval_share": 1.5}, {"slug": "not a slug"}, {"name": ""}],
)
def test_values_that_make_no_sense_are_refused(lead, wrong):
    with pytest.raises(ValidationError):
        create_project(**{"slug": "x", "name": "X", "created_by": lead, **wrong})
    assert not Project.objects.exists()


def test_a_wrong_form_is_refused_and_changes_nothing(project, lead):
    with pytest.raises(BadForm):
        create_project(slug="x", name="X", created_by=lead, form={"stars": 5})
    with pytest.raises(BadForm):
        change_project(project=project, form={"ranking": False})
    project.refresh_from_db()
    assert project.form["ranking"] is True


def test_a_project_keeps_a_lead(project, lead, annotator):
    for attempt in (
        lambda: remove_member(project=project, user=lead),
        lambda: add_member(project=project, user=lead, role="annotator"),
    ):
        with pytest.raises(LastLead):
            attempt()
    add_member(project=project, user=annotator, role="lead")
    remove_member(project=project, user=lead)
    assert not projects_of(lead).exists()


def test_another_role_keeps_the_pseudonym_and_another_project_has_another(project, lead, engineer):
    before = Membership.objects.get(project=project, user=engineer).pseudonym
    assert add_member(project=project, user=engineer, role="reviewer").pseudonym == before
    assert engineer.username not in before
    other = factories.make_project(lead, slug="other")
    assert pseudonym_of(other, engineer) != before == pseudonym_of(project, engineer)


def test_the_pseudonym_cannot_be_worked_out_without_the_key(project, annotator, settings):
    before = pseudonym_of(project, annotator)
    settings.PSEUDONYM_KEY = "x" * 48
    assert pseudonym_of(project, annotator) != before


def test_a_guideline_has_versions_and_the_same_text_again_none(project, lead):
    assert current_guideline(project).version == 1
    second = publish_guideline(project=project, markdown="Prefer kind.", created_by=lead)
    assert publish_guideline(project=project, markdown="Prefer kind.", created_by=lead) == second
    assert second.version == 2 == current_guideline(project).version
    event = Event.objects.filter(group=project.live_group, name="guideline").latest("pk")
    assert event.payload == {"version": 2}
