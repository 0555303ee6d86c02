from labeling.accounts.models import User
from labeling.projects.services import add_member
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
