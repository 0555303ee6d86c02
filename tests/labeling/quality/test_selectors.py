from datetime import timedelta

import pytest
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.services import set_aside_judgements, submit_judgement, take_lease
from labeling.projects.services import add_member, change_project, pseudonym_of
from labeling.quality.selectors import (
    annotators_by_pseudonym,
    consensus_of_tasks,
    standing_judgements,
    tasks_with_rankings,
)
from labeling.quality.services import adjudicate, compute_due_reports, figures_and_annotators, quality_figures
from tests import factories
from tests.labeling.quality.judged import completion_ids, judge


def test_no_judgements_give_figures_that_say_why_they_are_missing(project):
    figures = quality_figures(project)
    assert (figures["n_tasks"], figures["n_judgements"], figures["annotators"]) == (0, 0, [])
    assert figures["agreement"]["pairwise_raw"]["value"] is None
    assert "not defined" in figures["agreement"]["krippendorff_alpha_nominal"]["method"]


def test_people_who_always_agree_agree_wholly(project, annotator, other_annotator):
    factories.fill_project(project, 4, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    figures = quality_figures(project)
    assert figures["n_judgements"] == 8
    assert figures["agreement"]["pairwise_raw"]["value"] == 1.0
    assert figures["agreement"]["pairwise_raw"]["n"] == 12
    assert figures["agreement"]["pairwise_raw"]["low"] < 1
    _, ids = figures_and_annotators(project)
    names = {annotators_by_pseudonym(project, ids)[row["annotator"]] for row in figures["annotators"]}
    assert names == {annotator, other_annotator}
    assert all(row["agreement_with_consensus"]["value"] == 1.0 for row in figures["annotators"])
    assert all(row["seconds_median"] == 5.0 for row in figures["annotators"])


def test_simulated_annotators_are_named_and_kept_out_of_the_figure_of_people(project, annotator):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    add_member(project=project, user=robot, role="annotator")
    factories.fill_project(project, 3, overlap=2)
    for person in (annotator, robot):
        factories.judge_all(project, person)
    figures = quality_figures(project)
    assert figures["annotator_kinds"] == {"human": 1, "simulated": 1}
    assert figures["agreement"]["pairwise_raw"]["n"] == 9
    assert figures["agreement_of_people"]["pairwise_raw"]["value"] is None
    assert {row["kind"] for row in figures["annotators"]} == {"human", "simulated"}


def test_superseded_judgements_do_not_count(project, annotator):
    from labeling.annotation.services import revise_judgement

    factories.fill_project(project, 1)
    factories.judge_all(project, annotator)
    judgement = project.judgements.get()
    revise_judgement(judgement=judgement, submission_key="again", body={"ranking": [["a", "b", "c"]]})
    assert quality_figures(project)["n_judgements"] == 1


def rate_all(project, annotator, score):
    """Rate each completion of each task left by `score` of its number in the order of entry."""
    while lease := take_lease(project=project, annotator=annotator):
        order = sorted(lease.order_shown)
        keys = {"abcdefghi"[index]: order.index(pk) for index, pk in enumerate(lease.order_shown)}
        body = {
            "ratings": {key: {"help": score(number)} for key, number in keys.items()},
            "acceptable": {key: score(number) > 2 for key, number in keys.items()},
        }
        submit_judgement(lease=lease, submission_key=f"{annotator.pk}-{lease.pk}", body=body)


def test_ratings_of_two_people_have_an_alpha_for_each_axis_and_no_ranking_is_needed(
    project, annotator, other_annotator
):
    scales = {"help": {"low": 1, "high": 5}, "unused": {"low": 1, "high": 3}}
    change_project(project=project, form={"ranking": False, "acceptable": True, "ratings": scales})
    factories.fill_project(project, 4, overlap=2)
    rate_all(project, annotator, lambda number: 1 + 2 * number)
    alone = quality_figures(project)["agreement"]
    assert not [name for name in alone if ":" in name]
    rate_all(project, other_annotator, lambda number: (2, 3, 5)[number])
    figures = quality_figures(project)
    alpha = figures["agreement"]["krippendorff_alpha_interval:help"]
    assert (alpha["n"], alpha["value"] > 0.8) == (12, True)
    assert figures["agreement"]["krippendorff_alpha_nominal:acceptable"]["value"] == 1.0
    assert "krippendorff_alpha_interval:unused" not in figures["agreement"]
    assert figures["agreement"]["pairwise_raw"]["value"] is None
    assert figures["position_bias"]["value"] is None and figures["n_judgements"] == 8


def test_ratings_by_people_alone_have_a_figure_of_their_own(project, annotator):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    add_member(project=project, user=robot, role="annotator")
    change_project(
        project=project, form={"ranking": False, "ratings": {"help": {"low": 1, "high": 5}}, "acceptable": True}
    )
    factories.fill_project(project, 3, overlap=2)
    for person in (annotator, robot):
        rate_all(project, person, lambda number: 1 + number)
    figures = quality_figures(project)
    assert "krippendorff_alpha_interval:help" in figures["agreement"]
    assert "krippendorff_alpha_interval:help" not in figures["agreement_of_people"]


def test_tasks_of_one_completion_and_demonstrations_break_no_figure(project, annotator, other_annotator):
    change_project(project=project, form={"ranking": False, "demonstration": "required"})
    factories.fill_project(project, 2, n_completions=1, overlap=2)
    for person in (annotator, other_annotator):
        while lease := take_lease(project=project, annotator=person):
            submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body={"demonstration": "Mine."})
    figures = quality_figures(project)
    assert figures["n_judgements"] > 0
    assert all(row["agreement_with_consensus"]["value"] is None for row in figures["annotators"])


def test_a_consensus_names_completions_and_has_a_probability_for_each_pair(project, annotator, other_annotator):
    factories.fill_project(project, 4, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    quality_figures(project)
    tasks = list(tasks_with_rankings(project).order_by("pk"))
    assert len(tasks) == 4
    row = consensus_of_tasks(project, tasks)[0]
    ids = [str(pk) for pk in sorted(tasks[0].completions.values_list("pk", flat=True))]
    assert row["ranking"] == [[pk] for pk in ids]  # factories rank in the order of ids
    assert (row["task"], row["n_judgements"], row["n_people"]) == (tasks[0].public_id, 2, 2)
    assert len(row["pairs"]) == 3
    for pair in row["pairs"]:
        assert pair["p_first"] + pair["p_second"] + pair["p_tie"] == pytest.approx(1)
        assert pair["p_first"] > 0.9 and pair["n"] == 2
    assert sorted(row["scores"], key=row["scores"].get, reverse=True) == ids
    assert row["points"][ids[0]] > row["points"][ids[2]]


def test_a_consensus_takes_three_queries_whatever_the_number_of_tasks(project, annotator, django_assert_num_queries):
    factories.fill_project(project, 6)
    factories.judge_all(project, annotator)
    tasks = list(tasks_with_rankings(project))
    with django_assert_num_queries(3):
        assert len(consensus_of_tasks(project, tasks)) == 6


def test_tasks_that_nobody_ranked_have_no_consensus(project, annotator):
    factories.fill_project(project, 3)
    factories.judge_all(project, annotator, limit=1)
    assert tasks_with_rankings(project).count() == 1
    rows = consensus_of_tasks(project, list(project.tasks.all()))
    assert sorted(row["ranking"] is None for row in rows) == [False, True, True]
    assert consensus_of_tasks(project, []) == []


def test_gold_tasks_and_superseded_judgements_stay_out_of_standing_judgements(filled_project, annotator):
    factories.judge_all(filled_project, annotator)
    filled_project.tasks.filter(pk=filled_project.tasks.first().pk).update(purpose="gold")
    assert standing_judgements(filled_project).count() == 4


# --- what reviewers settled ---------------------------------------------------------------------
A, B = [[0], [1], [2]], [[2], [1], [0]]


def settle(task, by, ranking, **more):
    key = f"settle-{task.pk}-{more.get('supersedes')}"
    return adjudicate(task=task, by=by, submission_key=key, outcome="ranking", ranking=ranking, **more).adjudication


@pytest.fixture
def disputed(project, annotator, other_annotator):
    """Six tasks that the two rank the other way round."""
    factories.fill_project(project, 6, overlap=2)
    for _ in range(6):
        judge(project, annotator, A)
        judge(project, other_annotator, B)
    return list(project.tasks.order_by("pk"))


def test_the_consensus_of_a_settled_task_is_what_was_settled_for_certain(project, disputed, reviewer):
    one, two, three = completion_ids(disputed[0])
    settle(disputed[0], reviewer, [[two], [one, three]])
    quality_figures(project)
    settled, other = consensus_of_tasks(project, disputed[:2])
    assert settled["ranking"] == [[str(two)], [str(one), str(three)]]
    assert [(pair["p_first"], pair["p_second"], pair["p_tie"], pair["n"]) for pair in settled["pairs"]] == [
        (0, 1, 0, 2), (0, 0, 1, 2), (1, 0, 0, 2),
    ]  # fmt: skip
    assert settled["points"] == {str(one): 0.5, str(two): 2.0, str(three): 0.5}
    assert max(settled["scores"], key=settled["scores"].get) == str(two)
    assert settled["adjudication"]["by"] == pseudonym_of(project, reviewer)
    assert settled["adjudication"]["at"] and settled["adjudication"]["blind"] is False
    assert other["adjudication"] is None and other["pairs"][0]["p_first"] < 1


def test_a_replaced_outcome_gives_way_and_one_left_as_it_is_decides_nothing(project, disputed, reviewer, lead):
    ids = completion_ids(disputed[0])
    first = settle(disputed[0], reviewer, [ids])
    settle(disputed[0], lead, [[pk] for pk in ids], supersedes=first.pk)
    adjudicate(task=disputed[1], by=reviewer, submission_key="left", outcome="left")
    settled, left = consensus_of_tasks(project, disputed[:2])
    assert settled["ranking"] == [[str(pk)] for pk in ids]
    assert settled["adjudication"]["by"] == pseudonym_of(project, lead)
    assert left["adjudication"] is None


def test_a_settled_task_whose_judgements_were_set_aside_keeps_its_consensus(project, disputed, reviewer, annotator):
    ids = completion_ids(disputed[0])
    settle(disputed[0], reviewer, [[pk] for pk in ids])
    for person in project.memberships.filter(role="annotator"):
        set_aside_judgements(project=project, annotator=person.user, reason="careless")
    assert list(tasks_with_rankings(project)) == [disputed[0]]
    (found,) = consensus_of_tasks(project, disputed[:1])
    assert found["ranking"] == [[str(pk)] for pk in ids] and found["pairs"][0]["n"] == 0


def test_what_was_settled_tells_who_is_to_be_relied_on(project, disputed, reviewer, annotator, other_annotator):
    def rows():
        figures, ids = figures_and_annotators(project)
        people = annotators_by_pseudonym(project, ids)
        return figures, {people[row["annotator"]]: row for row in figures["annotators"]}

    before, people = rows()
    assert people[annotator]["reliability"]["value"] == pytest.approx(people[other_annotator]["reliability"]["value"])
    assert people[annotator]["agreement_with_adjudication"]["value"] is None
    assert before["disagreement"]["open"] | {"method": ""} == {
        "value": 1.0, "low": pytest.approx(0.6097, abs=1e-3), "high": 1.0, "n": 18, "method": "",
    }  # fmt: skip
    for task in disputed[:4]:
        settle(task, reviewer, [[pk] for pk in completion_ids(task)])
    adjudicate(task=disputed[4], by=reviewer, submission_key="left", outcome="left")
    after, people = rows()
    assert people[annotator]["reliability"]["value"] > 0.9 > 0.1 > people[other_annotator]["reliability"]["value"]
    assert people[annotator]["crowd_bt"]["value"] > 0.75 > 0.5 > people[other_annotator]["crowd_bt"]["value"]
    assert people[annotator]["agreement_with_adjudication"]["value"] == 1
    assert people[other_annotator]["agreement_with_adjudication"] | {"method": ""} == {
        "value": 0.0, "low": 0.0, "high": pytest.approx(0.4899, abs=1e-3), "n": 12, "method": "",
    }  # fmt: skip
    # Agreement is of the votes, which are what they were.
    assert after["agreement"] == before["agreement"]
    # Settled tasks are not open any more, whatever the outcome.
    assert after["disagreement"]["open"]["n"] == 3
    assert [(row["n_open"], row["n_settled"]) for row in after["disagreement"]["histogram"][-2:]] == [(0, 0), (1, 5)]
    assert after["adjudication"]["outcomes"] == {"ranking": 4, "left": 1, "unfit": 0}
    assert [day["n"] for day in after["adjudication"]["by_day"]] == [5]
    assert (after["adjudication"]["agreement"]["value"], after["adjudication"]["agreement"]["n"]) == (0.5, 24)


def test_a_large_projects_report_is_asked_for_again_when_something_is_settled(project, disputed, reviewer, monkeypatch):
    compute_due_reports()
    settle(disputed[0], reviewer, [completion_ids(disputed[0])])
    assert compute_due_reports(at=now() + timedelta(hours=1)) == 1
    assert quality_figures(project)["adjudication"]["outcomes"]["ranking"] == 1
