from labeling.accounts.models import User
from labeling.annotation.services import submit_judgement, take_lease
from labeling.projects.services import add_member, change_project
from labeling.quality.selectors import annotators_by_pseudonym, project_agreement
from tests import factories


def test_no_judgements_give_figures_that_say_why_they_are_missing(project):
    figures = project_agreement(project)
    assert (figures["n_tasks"], figures["n_judgements"], figures["annotators"]) == (0, 0, [])
    assert figures["agreement"]["pairwise_raw"]["value"] is None
    assert "not defined" in figures["agreement"]["krippendorff_alpha_nominal"]["method"]


def test_people_who_always_agree_agree_wholly(project, annotator, other_annotator):
    factories.fill_project(project, 4, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    figures = project_agreement(project)
    assert figures["n_judgements"] == 8
    assert figures["agreement"]["pairwise_raw"]["value"] == 1.0
    assert figures["agreement"]["pairwise_raw"]["n"] == 12
    assert figures["agreement"]["pairwise_raw"]["low"] < 1
    names = {annotators_by_pseudonym(project)[row["annotator"]] for row in figures["annotators"]}
    assert names == {annotator, other_annotator}
    assert all(row["agreement_with_consensus"]["value"] == 1.0 for row in figures["annotators"])
    assert all(row["seconds_median"] == 5.0 for row in figures["annotators"])


def test_simulated_annotators_are_named_and_kept_out_of_the_figure_of_people(project, annotator):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    add_member(project=project, user=robot, role="annotator")
    factories.fill_project(project, 3, overlap=2)
    for person in (annotator, robot):
        factories.judge_all(project, person)
    figures = project_agreement(project)
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
    assert project_agreement(project)["n_judgements"] == 1


def test_the_number_of_queries_does_not_grow(project, annotator, django_assert_num_queries):
    factories.fill_project(project, 6)
    factories.judge_all(project, annotator)
    with django_assert_num_queries(1):
        project_agreement(project)


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
    alone = project_agreement(project)["agreement"]
    assert not [name for name in alone if ":" in name]
    rate_all(project, other_annotator, lambda number: (2, 3, 5)[number])
    figures = project_agreement(project)
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
    figures = project_agreement(project)
    assert "krippendorff_alpha_interval:help" in figures["agreement"]
    assert "krippendorff_alpha_interval:help" not in figures["agreement_of_people"]


def test_tasks_of_one_completion_and_demonstrations_break_no_figure(project, annotator, other_annotator):
    change_project(project=project, form={"ranking": False, "demonstration": "required"})
    factories.fill_project(project, 2, n_completions=1, overlap=2)
    for person in (annotator, other_annotator):
        while lease := take_lease(project=project, annotator=person):
            submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body={"demonstration": "Mine."})
    figures = project_agreement(project)
    assert figures["n_judgements"] > 0
    assert all(row["agreement_with_consensus"]["value"] is None for row in figures["annotators"])
