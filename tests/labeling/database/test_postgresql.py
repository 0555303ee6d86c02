"""Statements that everyone makes are planned once for each connection; a connection that was lost is noticed."""

import time

import psycopg
import pytest
from django.db import connection

from labeling.annotation.services import submit_and_take_lease, take_lease
from labeling.database import planner
from labeling.projects.models import Membership
from tests import factories

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL alone"),
]


def prepared() -> dict[str, tuple[int, int]]:
    """Statement -> how often it was run by a plan of its own, and by the kept one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement, custom_plans, generic_plans FROM pg_prepared_statements")
        return {statement: (custom, kept) for statement, custom, kept in cursor.fetchall()}


def judge(project, annotator, n: int) -> None:
    lease = take_lease(project=project, annotator=annotator)
    for number in range(n):
        lease.annotator = annotator
        _done, lease = submit_and_take_lease(lease=lease, submission_key=f"k{number}", body={"ranking": [["a"], ["b"], ["c"]]})


def test_a_judgement_is_planned_no_more_after_some(project, annotator):
    connection.close()
    factories.fill_project(project, 40)
    judge(project, annotator, 30)
    found = prepared()
    for table in ("projects_membership", "annotation_slot", "annotation_lease", "annotation_task", "annotation_judgement"):
        of_table = {sql: runs for sql, runs in found.items() if table in sql}
        assert of_table and any(kept >= 20 and own <= 5 for own, kept in of_table.values()), of_table
    # However many tasks there are, and however far the person has come in them, these are few.
    assert len(found) < 20


def test_other_statements_are_not_prepared_unasked(project):
    connection.close()
    for _ in range(10):
        list(Membership.objects.filter(project=project))
    assert prepared() == {}


def test_nothing_is_prepared_where_a_pooler_would_lose_it(project, annotator, monkeypatch):
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    factories.fill_project(project, 5)
    judge(project, annotator, 3)
    assert prepared() == {}


def test_many_new_rows_are_told_to_the_planner_and_few_are_not(project):
    def known(table: str) -> float:
        with connection.cursor() as cursor:
            cursor.execute("SELECT reltuples FROM pg_class WHERE relname = %s", [table])
            return cursor.fetchone()[0]

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE annotation_task, annotation_slot, projects_completion")
    before = known("annotation_task")
    factories.fill_project(project, planner.FROM - 1, n_completions=2)
    assert known("annotation_task") == before
    factories.fill_project(project, 2 * planner.FROM, n_completions=2)
    assert known("annotation_task") == known("annotation_slot") == 2 * planner.FROM
    assert known("projects_completion") == 4 * planner.FROM


def test_a_connection_that_the_server_ended_is_noticed_before_it_is_used(project):
    list(Membership.objects.all())
    assert connection.is_usable()
    number = connection.connection.info.backend_pid
    address = {name: connection.get_connection_params()[name] for name in ("host", "port", "user", "password", "dbname")}
    with psycopg.connect(**address) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [number])
    deadline = time.monotonic() + 30
    while connection.is_usable() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not connection.is_usable()
    connection.health_check_enabled, connection.health_check_done = True, False
    assert list(Membership.objects.all()) and connection.connection.info.backend_pid != number


def test_after_an_error_the_server_is_asked(project):
    list(Membership.objects.all())
    connection.errors_occurred = True
    assert connection.is_usable()
    connection.connection.close()
    assert not connection.is_usable()
    connection.close()
    assert list(Membership.objects.all())
