from labeling.quality.services import quality_figures
from tests import factories
from tests.api_caller import Caller


def judged(project, *people):
    factories.fill_project(project, 3, overlap=len(people))
    for person in people:
        factories.judge_all(project, person)
    return project


def test_quality_answers_with_the_stored_report(project, annotator, other_annotator, lead):
    judged(project, annotator, other_annotator)
    answer = Caller(lead).get("projects/support/quality/").json()
    assert answer == quality_figures(project)
    assert answer["computed_at"] and answer["n_judgements_since"] == 0


def test_consensus_is_paged_and_can_be_asked_for_by_task(project, annotator, other_annotator, engineer):
    judged(project, annotator, other_annotator)
    caller = Caller(engineer)
    page = caller.get("projects/support/consensus/?page_size=2").json()
    assert len(page["results"]) == 2 and page["next"]
    task = page["results"][0]["task"]
    (alone,) = caller.get(f"projects/support/consensus/?task={task}").json()["results"]
    assert alone == page["results"][0]
    assert alone["n_judgements"] == 2 and len(alone["ranking"]) == 3
    assert caller.get("projects/support/consensus/?task=nothing").json()["results"] == []


def test_annotators_may_not_see_the_consensus_and_strangers_see_no_project(project, annotator, stranger, reviewer):
    judged(project, annotator)
    assert Caller(annotator).get("projects/support/consensus/").status_code == 403
    assert Caller(stranger).get("projects/support/consensus/").status_code == 404
    assert Caller(reviewer).get("projects/support/consensus/").status_code == 200
