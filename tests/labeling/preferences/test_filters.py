"""Each filter lets in what it says, on whichever database the tests run."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.utils.timezone import now

from labeling.annotation.models import Judgement, Task
from labeling.annotation.services import revise_judgement, take_lease
from labeling.preferences.errors import BadFilter
from labeling.preferences.filters import (
    DEFAULT_FILTERS,
    DEFAULT_POLICY,
    FILTERS,
    POLICY,
    complete_filters,
    complete_policy,
    judgements_chosen,
    left_out_by_figures,
)
from labeling.preferences.models import Withdrawal
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Membership, Project, Prompt
from labeling.projects.services import add_member, pseudonym_of
from labeling.quality.models import QualityReport
from labeling.quality.services import compute_report
from tests import factories
from tests.labeling.quality import gold

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.FILES = tmp_path


@pytest.fixture
def judged(project, annotator, other_annotator):
    """Six tasks, each judged by two."""
    factories.fill_project(project, 6, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    return project


def passing(project: Project, **filters) -> set[int]:
    found = judgements_chosen(project, complete_filters(filters), complete_policy({}))
    return set(found.values_list("pk", flat=True))


def by_prompt(project: Project, *places: int) -> set[int]:
    prompts = list(Prompt.objects.filter(project=project).order_by("pk"))
    found = Judgement.objects.filter(task__prompt__in=[prompts[place] for place in places])
    return set(found.values_list("pk", flat=True))


def by_person(*people) -> set[int]:
    return set(Judgement.objects.filter(annotator__in=people).values_list("pk", flat=True))


def change_prompts(project: Project, *values: dict) -> None:
    for prompt, value in zip(Prompt.objects.filter(project=project).order_by("pk"), values, strict=False):
        Prompt.objects.filter(pk=prompt.pk).update(**value)


def at(judgement_ids: list[int], when: datetime) -> None:
    """As if they had been made then: what nobody else may do, a test does behind the database's back."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute("UPDATE annotation_judgement SET created_at = %s WHERE id = ANY(%s)", [when, judgement_ids])
            cursor.execute("SET LOCAL session_replication_role = origin")
            return
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'annotation_judgement'")
        triggers = cursor.fetchall()
        for name, _ in triggers:
            cursor.execute(f'DROP TRIGGER "{name}"')
        for pk in judgement_ids:
            cursor.execute(
                "UPDATE annotation_judgement SET created_at = %s WHERE id = %s", [str(when.replace(tzinfo=None)), pk]
            )
        for _, sql in triggers:
            cursor.execute(sql.replace("%", "%%"))


def test_tags_are_found_whole_and_any_of_them_suffices(judged):
    change_prompts(
        judged, {"tags": ["billing", "von Ärger"]}, {"tags": ["bill"]}, {"tags": []}, {"tags": ['odd "quoted" tag']},
        {"tags": ["Billing"]},
    )  # fmt: skip
    assert passing(judged, tags=["billing"]) == by_prompt(judged, 0)
    assert passing(judged, tags=["bill", 'odd "quoted" tag']) == by_prompt(judged, 1, 3)
    assert passing(judged, tags=["von Ärger"]) == by_prompt(judged, 0)
    assert passing(judged, tags=["nothing has it"]) == passing(judged, tags=["bill%"]) == set()
    assert passing(judged, tags=[]) == passing(judged, tags=None) == passing(judged)


def test_sources_and_licences_with_an_empty_text_for_unknown(judged):
    change_prompts(judged, {"source": "a", "licence": ""}, {"source": "", "licence": "MIT"}, {"source": "b", "licence": "MIT"})
    assert passing(judged, sources=["a", "b"]) == by_prompt(judged, 0, 2)
    assert passing(judged, sources=[""]) == by_prompt(judged, 1)
    assert passing(judged, licences=["", "MIT"]) == by_prompt(judged, 0, 1, 2)


def test_annotators_by_pseudonym_and_a_name_nobody_has_is_refused(judged, annotator, other_annotator, lead):
    name = pseudonym_of(judged, annotator)
    assert passing(judged, annotators=[name]) == by_person(annotator)
    assert passing(judged, annotators=[name, pseudonym_of(judged, other_annotator)]) == passing(judged)
    with pytest.raises(BadFilter) as caught:
        passing(judged, annotators=[pseudonym_of(judged, lead)])
    assert "has judged nothing" in caught.value.fields["annotators"]


def test_iterations_and_purposes(judged):
    first, second = judged.tasks.order_by("pk")[:2]
    Task.objects.filter(pk=first.pk).update(iteration=3)
    Task.objects.filter(pk=second.pk).update(purpose=Task.Purpose.EVALUATION)
    assert passing(judged, iterations=[3, 4]) == by_prompt(judged, 0)
    assert passing(judged) == by_prompt(judged, 0, 2, 3, 4, 5)
    assert passing(judged, purposes=["evaluation"]) == by_prompt(judged, 1)
    assert passing(judged, purposes=[]) == by_prompt(judged, *range(6))


def test_since_takes_its_moment_in_and_until_leaves_it_out(judged):
    ids = sorted(by_prompt(judged, *range(6)))
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    at(ids[:3], noon)
    at(ids[3:6], noon + timedelta(hours=1))
    assert passing(judged, since="2026-03-01T12:00:00Z", until="2026-03-01T13:00:00Z") == set(ids[:3])
    assert passing(judged, since="2026-03-01T14:00:00+01:00", until="2026-03-02") == set(ids[3:6])
    assert passing(judged, until="2026-03-01") == set()


def test_kinds_are_those_of_the_time_of_the_judgement(judged, annotator):
    robot = factories.make_user("robot", kind="simulated")
    add_member(project=judged, user=robot, role="annotator")
    factories.fill_project(judged, 8, overlap=1)
    factories.judge_all(judged, robot)
    assert passing(judged, annotator_kinds=["simulated"]) == by_person(robot)
    assert not passing(judged, annotator_kinds=["human"]) & by_person(robot)


def test_only_who_said_yes_where_consent_has_to_be_given(judged, annotator):
    assert passing(judged, consent="given") == set()
    Membership.objects.filter(project=judged, user=annotator).update(consent="given", consent_at=now())
    assert passing(judged, consent="given") == by_person(annotator)


def test_what_is_withdrawn_is_left_out_whatever_the_filters(judged, annotator, other_annotator):
    person = Withdrawal.objects.create(project=judged, annotator=annotator)
    assert passing(judged) == by_person(other_annotator)
    prompt = Prompt.objects.filter(project=judged).earliest("pk")
    Withdrawal.objects.create(project=judged, prompt=prompt)
    assert passing(judged) == by_person(other_annotator) - by_prompt(judged, 0)
    Withdrawal.objects.filter(pk=person.pk).update(undone_at=now())
    assert passing(judged) == by_prompt(judged, *range(1, 6))


def test_reliability_is_that_of_the_newest_figures_and_pinned_when_frozen(judged, annotator, other_annotator):
    report = compute_report(project=judged)
    rows = {row["annotator"]: row for row in report.figures["annotators"]}
    weak, strong = pseudonym_of(judged, annotator), pseudonym_of(judged, other_annotator)
    rows[weak]["reliability"] |= {"value": 0.4, "n": 18}
    rows[strong]["reliability"] |= {"value": 0.9, "n": 18}
    QualityReport.objects.filter(pk=report.pk).update(figures=report.figures)
    assert passing(judged, min_reliability=0.4) == passing(judged)
    assert passing(judged, min_reliability=0.7) == by_person(other_annotator)
    snapshot = create_snapshot(project=judged, created_by=None, filters={"min_reliability": 0.7})
    assert snapshot.manifest["left_out_annotators"] == [
        {"annotator": weak, "by": "min_reliability", "value": 0.4, "n": 18}
    ]
    assert snapshot.n_judgements == 6
    # The figures move; what was frozen can be frozen again all the same.
    rows[weak]["reliability"]["value"] = 0.95
    QualityReport.objects.filter(pk=report.pk).update(figures=report.figures)
    assert create_snapshot(project=judged, created_by=None, filters=snapshot.filters) == snapshot
    assert passing(judged, min_reliability=0.7) == passing(judged)


def test_who_has_no_figure_does_not_reach_a_bar(judged, annotator):
    report = compute_report(project=judged)
    for row in report.figures["annotators"]:
        if row["annotator"] == pseudonym_of(judged, annotator):
            row["reliability"] = {"value": None, "n": 0}
    QualityReport.objects.filter(pk=report.pk).update(figures=report.figures)
    assert not passing(judged, min_reliability=0.0) & by_person(annotator)


def test_gold_that_was_passed_is_the_share_right_of_enough_answers(project, annotator, other_annotator):
    gold.set_quality(project, gold_rate=0.5, gold_least=3, gold_window=5, gold_bound=0.6, requeue_days=0)
    gold.write(project, 10)
    factories.fill_project(project, 30, overlap=2)  # so many that each meets three gold tasks, whatever chance says
    for person, well in ((annotator, True), (other_annotator, False)):
        while lease := take_lease(project=project, annotator=person):
            gold.answer(lease, well=well or not lease.task.is_gold)
    chosen = passing(project, gold="passed")
    assert chosen and chosen == by_person(annotator) & passing(project)
    [row] = left_out_by_figures(project, complete_filters({"gold": "passed"}))
    assert (row["annotator"], row["by"], row["value"]) == (pseudonym_of(project, other_annotator), "gold", 0.0)
    gold.set_quality(project, gold_least=50, gold_window=60)
    assert passing(project, gold="passed") == set()


def test_a_revision_after_the_bound_leaves_what_it_revises_in(judged, annotator):
    before = create_snapshot(project=judged, created_by=None)
    judgement = judged.judgements.filter(annotator=annotator).first()
    revise_judgement(judgement=judgement, submission_key="r", body={"ranking": [["c"], ["b"], ["a"]]})
    assert create_snapshot(project=judged, created_by=None) != before
    assert create_snapshot(project=judged, created_by=None, filters=before.filters) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", [-1]), ("iterations", [1.5]), ("iterations", [2**40]), ("tags", "billing"), ("tags", [""]),
        ("tags", [1]), ("tags", ["x" * 201]), ("tags", ["\x00"]), ("tags", ["x"] * 1001), ("sources", {"a": 1}), ("purposes", ["gold"]),
        ("purposes", [["preference"]]), ("annotator_kinds", ["ghost"]), ("since", "yesterday"), ("since", 7),
        ("until", "2026-13-01"), ("until", "0001-01-01T00:00:00+14:00"), ("min_agreement", 1.01),
        ("min_agreement", float("nan")), ("min_reliability", True), ("min_reliability", "0.5"), ("gold", "failed"),
        ("gold", None), ("consent", []), ("without_flags", [None]), ("up_to_judgement", -1),
        ("up_to_judgement", 2**63), ("up_to_adjudication", True), ("left_out_annotators", "me"), ("people", ["ada"]),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_by_its_name(name, value):
    with pytest.raises(BadFilter) as caught:
        complete_filters({name: value})
    assert list(caught.value.fields) == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ties", "maybe"), ("ties", ["drop"]), ("votes", None), ("pairs", "best"), ("margins", {"4": 1.0}),
        ("margins", {"1": True}), ("margins", {"1": float("inf")}), ("margins", [1]), ("corrections", True),
        ("adjudications", "maybe"), ("shape", 1),
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused_by_its_name(name, value):
    with pytest.raises(BadFilter) as caught:
        complete_policy({name: value})
    assert list(caught.value.fields) == [name]


def test_what_means_the_same_is_kept_alike():
    assert complete_filters(None) == complete_filters({}) == DEFAULT_FILTERS
    assert complete_policy(None) == DEFAULT_POLICY
    one = complete_filters({"tags": ["b", "a", "b"], "since": "2026-03-01", "min_agreement": 1})
    other = complete_filters({"tags": ["a", "b"], "since": "2026-03-01T01:00:00+01:00", "min_agreement": 1.0})
    assert one == other and one["since"] == "2026-03-01T00:00:00Z"
    # Its name before a tie could be shown both ways round.
    assert complete_policy({"ties": "keep"})["ties"] == "soft_label"


def test_every_part_says_what_it_does_and_has_a_default_that_passes():
    for part in (*FILTERS.values(), *POLICY.values()):
        assert part.says and part.check(part.default) == part.default
        for choice in part.choices or {}:
            assert part.check([choice] if isinstance(part.default, list) else choice)
