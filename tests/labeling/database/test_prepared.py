from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F, QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Lease, Task
from labeling.annotation.services import take_lease
from labeling.database.prepared import insert, prepared, prepared_update
from labeling.live.models import Event
from tests import factories

pytestmark = pytest.mark.django_db


@prepared
def leases_of(user: int, until: datetime, name: str) -> QuerySet[Lease]:
    return (
        Lease.objects.filter(annotator=user, annotator__username=name, expires_at__lt=until)
        .select_related("task__prompt", "annotator")
        .annotate(twice=F("pk") * 2)
        .order_by("pk")
    )


@prepared_update
def _close(task: int, state: str) -> tuple[QuerySet[Task], dict]:
    return Task.objects.filter(pk=task), {"n_judged": F("n_judged") + 2, "state": state}


def test_rows_are_those_of_the_queryset_with_what_was_selected_along(filled_project, annotator, other_annotator):
    mine = take_lease(project=filled_project, annotator=annotator)
    theirs = take_lease(project=filled_project, annotator=other_annotator)
    later = now() + timedelta(days=1)
    for person, lease in [(annotator, mine), (other_annotator, theirs)] * 2:
        values = {"user": person.pk, "until": later, "name": person.username}
        with CaptureQueriesContext(connection) as captured:
            (row,) = leases_of(**values)
            assert row.task.prompt.messages and row.annotator.username == person.username and row.twice == 2 * lease.pk
        assert len(captured) == 1
        assert row == lease and row == leases_of.build(**values).get()
        assert (row.expires_at, row.order_shown) == (lease.expires_at, lease.order_shown)
    assert leases_of(user=annotator.pk, until=now(), name=annotator.username) == []
    assert leases_of(user=annotator.pk, until=later, name="' or 1=1 --") == []


def test_an_update_changes_what_it_names_and_says_how_many(filled_project):
    task, other = filled_project.tasks.order_by("pk")[:2]
    assert _close(task=task.pk, state=Task.State.CLOSED) == 1
    assert _close(task=task.pk, state=Task.State.DONE) == 1
    assert _close(task=0, state=Task.State.DONE) == 0
    task.refresh_from_db()
    other.refresh_from_db()
    assert (task.n_judged, task.state) == (4, Task.State.DONE)
    assert (other.n_judged, other.state) == (0, Task.State.OPEN)


def test_a_row_put_in_reads_back_as_one_that_was_saved(db):
    row = insert(Event(group="project.1", name="queue", payload={"new": 3}))
    found = Event.objects.get()
    assert found == row and found.payload == {"new": 3} and found.created_at == row.created_at
    row.name = "changed"
    row.save()
    assert Event.objects.get().name == "changed"


def test_a_value_that_the_sql_has_no_place_for_is_refused():
    @prepared
    def people(name: str, unused: int) -> QuerySet[User]:
        return User.objects.filter(username=name)

    with pytest.raises(TypeError, match="no place for unused"):
        people(name="a", unused=1)


def test_stand_ins_never_reach_the_database(annotator):
    factories.make_user("other")

    @prepared
    def people(name: str) -> QuerySet[User]:
        return User.objects.filter(username=name)

    with CaptureQueriesContext(connection) as captured:
        assert people(name=annotator.username) == [annotator]
    assert "\x01" not in captured[0]["sql"]
