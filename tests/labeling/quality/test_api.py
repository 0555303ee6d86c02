from rest_framework import serializers

from labeling.annotation.services import take_lease
from labeling.quality.models import QualityReport
from labeling.quality.serializers import ConsensusSerializer, QualitySerializer
from labeling.quality.services import adjudicate, quality_figures, reports
from tests import factories
from tests.api_caller import Caller
from tests.labeling.quality import gold


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


def undescribed(serializer, value, path="") -> list[str]:
    """Where an answer and its description part: keys that only one of them has. Followed through lists and objects."""
    if value is None:
        return [] if serializer.allow_null else [f"{path} is null"]
    if isinstance(serializer, serializers.ListSerializer):
        return [text for item in value for text in undescribed(serializer.child, item, f"{path}[]")]
    if isinstance(serializer, serializers.DictField) and serializer.child is not None:
        return [text for item in value.values() for text in undescribed(serializer.child, item, f"{path}.*")]
    if not isinstance(serializer, serializers.Serializer):
        return []
    needed = {name for name, field in serializer.fields.items() if field.required}
    wrong = [f"{path}.{name}" for name in (value.keys() - serializer.fields.keys()) | (needed - value.keys())]
    for name in value.keys() & serializer.fields.keys():
        wrong += undescribed(serializer.fields[name], value[name], f"{path}.{name}")
    return wrong


def test_every_part_of_the_answer_is_described(project, annotator, other_annotator, reviewer, lead, monkeypatch):
    assert undescribed(QualitySerializer(), Caller(lead).get("projects/support/quality/").json()) == []
    gold.set_quality(project, gold_rate=0.5, repeat_rate=0.5, repeat_after=2, repeat_hours=0, gold_bound=0)
    gold.write(project, 6)
    factories.fill_project(project, 30, overlap=2)
    for person, well in ((annotator, True), (other_annotator, False)):
        while lease := take_lease(project=project, annotator=person):
            gold.answer(lease, well=well)
    for number, task in enumerate(project.tasks.filter(purpose="preference").order_by("pk")[:2]):
        ids = list(task.completions.values_list("pk", flat=True))
        adjudicate(task=task, by=reviewer, submission_key=f"key-{number}", outcome="ranking", ranking=[ids])
    answer = Caller(lead).get("projects/support/quality/").json()
    assert answer["agreement_over_time"] and answer["agreement_by_time"] and answer["adjudication"]["by_day"]
    assert answer["annotators"][0]["gold"]["n"] == 6 and answer["annotators"][0]["repeats"]
    assert answer["disagreement"]["histogram"][9] == {"low": 0.9, "high": 1.0, "n_open": 28, "n_settled": 2}
    assert undescribed(QualitySerializer(), answer) == []
    monkeypatch.setattr(reports, "SMALL", 3)
    QualityReport.objects.all().delete()
    waiting = Caller(lead).get("projects/support/quality/").json()
    assert waiting["computed_at"] is None and undescribed(QualitySerializer(), waiting) == []
    page = Caller(lead).get("projects/support/consensus/?page_size=100").json()
    assert undescribed(ConsensusSerializer(many=True), page["results"]) == []
    assert sum(row["adjudication"] is not None for row in page["results"]) == 2
