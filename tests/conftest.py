"""The cast of every test: a project `support` with its lead, annotator, reviewer and engineer, and a stranger."""

import pytest
from django.core.cache import cache
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from labeling.accounts.models import User
from labeling.accounts.roles import Role
from labeling.annotation import queue
from labeling.projects.models import Project
from tests import factories

# How fast a machine is, is no property of the code.
hypothesis_settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()


@pytest.fixture(autouse=True)
def _quick_passwords(settings):
    """Argon2 is slow on purpose, and the cast has six people."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _no_statement_by_chance(monkeypatch):
    """How far somebody has come in the queue is written down now and then: a statement more, which tests count."""
    monkeypatch.setattr(queue, "REMEMBERED_EVERY", 10**15)


@pytest.fixture
def lead(db) -> User:
    return factories.make_user("lead")


@pytest.fixture
def annotator(db) -> User:
    return factories.make_user("annotator")


@pytest.fixture
def other_annotator(db) -> User:
    return factories.make_user("other-annotator")


@pytest.fixture
def reviewer(db) -> User:
    return factories.make_user("reviewer")


@pytest.fixture
def engineer(db) -> User:
    return factories.make_user("engineer")


@pytest.fixture
def stranger(db) -> User:
    return factories.make_user("stranger")


@pytest.fixture
def project(lead, annotator, other_annotator, reviewer, engineer) -> Project:
    return factories.make_project(
        lead,
        members={
            annotator: Role.ANNOTATOR,
            other_annotator: Role.ANNOTATOR,
            reviewer: Role.REVIEWER,
            engineer: Role.ENGINEER,
        },
    )


@pytest.fixture
def filled_project(project) -> Project:
    """Five ranking tasks of three completions each."""
    factories.fill_project(project)
    return project
