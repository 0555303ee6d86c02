"""Records into tables: what is new, what was there, and rows shaped as those of the bench."""

from datetime import UTC, datetime

import pytest

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Lease, Slot, Task
from labeling.annotation.services import judgement_body, submit_judgement, take_lease
from labeling.imports.records import Record, Text, Vote
from labeling.imports.taking import Taken, Taker
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Completion, Import, Prompt
from labeling.projects.services import publish_guideline
from labeling.quality.services import compute_report
from tests import factories

pytestmark = pytest.mark.django_db

AT = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)
A_BETTER, B_BETTER = {"ranking": [["a"], ["b"]]}, {"ranking": [["b"], ["a"]]}


def take(project, *records: Record) -> Taken:
    begun = Import.objects.create(project=project, format="votes", state=Import.State.RUNNING)
    taker = Taker(begun)
    return taker.take(taker.check(records))


def record(*votes: Vote, line: int = 1, prompt: str = "Where is it?", texts=("Here.", "There."), **extra) -> Record:
    return Record(line, [{"role": "user", "content": prompt}], [Text(text, "m@1") for text in texts], list(votes), **extra)


def vote(judgement=A_BETTER, annotator: str = "ada", **extra) -> Vote:
    return Vote(dict(judgement), annotator, **extra)


def figures(taken: Taken) -> tuple[int, int, int, int]:
    return taken.n_taken, taken.n_duplicates, taken.n_judgements, len(taken.rejected)


def reasons(taken: Taken) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for _, one in taken.rejected]


def everything(project) -> list:
    """All rows an import writes, without their ids and moments."""
    tables = (Prompt, Completion, Task, Slot, Lease, Judgement)
    return [table.objects.count() for table in tables] + sorted(Task.objects.values_list("overlap", "n_judged", "state"))


def test_a_vote_becomes_a_judged_task_shaped_as_those_of_the_bench(project, annotator, filled_project):
    take(project, record(vote({**B_BETTER, "strength": 2, "ratings": {"a": {"helpful": 4}}, "seconds": 12.5}, order_shown=["b", "a"], at=AT)))
    factories.judge_all(filled_project, annotator, limit=1)
    ours = Judgement.objects.get(annotator__kind="imported")
    theirs = Judgement.objects.get(annotator=annotator)
    here, there = Completion.objects.filter(prompt=ours.task.prompt).order_by("pk")
    assert ours.ranking == [[there.pk], [here.pk]] and ours.order_shown == [there.pk, here.pk]
    assert ours.feedback == {"strength": 2, "ratings": {str(here.pk): {"helpful": 4}}}
    assert (ours.seconds, ours.created_at, ours.supersedes) == (12.5, AT, None)
    assert judgement_body(ours) == {"ranking": [["a"], ["b"]], "strength": 2, "ratings": {"b": {"helpful": 4}}, "seconds": 12.5}
    for name in ("kind", "purpose", "priority", "state", "n_judged", "overlap", "pool_id", "repeats_id", "iteration"):
        assert getattr(ours.task, name) == getattr(theirs.task, name), name
    assert ours.slot.position == ours.task.pk and theirs.slot.position == theirs.task.pk
    for name in ("state", "number", "expires_at", "pool_id"):
        assert getattr(ours.slot, name) == getattr(theirs.slot, name), name
    assert ours.slot.holder == ours.annotator and theirs.slot.holder == annotator
    for name in ("state", "draft", "skip_reason", "skip_note"):
        assert getattr(ours.lease, name) == getattr(theirs.lease, name), name
    assert ours.lease.closed_at == AT and (AT - ours.lease.created_at).total_seconds() == 12.5
    for row in (ours, theirs):
        row.full_clean(exclude=["feedback", "guideline", "slot", "supersedes"])
        row.task.full_clean(exclude=["pool", "repeats"])


def test_annotators_of_a_source_are_imported_accounts_that_nobody_can_log_in_to(project, stranger):
    take(project, record(vote(annotator="ada"), vote(annotator="gpt", kind="model"), vote(annotator="bot", kind="simulated"), vote(annotator="")))
    accounts = {user.username: user for user in User.objects.filter(username__startswith="import-")}
    start = f"import-{project.pk}"
    assert {name: user.kind for name, user in accounts.items()} == {
        f"{start}:ada": "imported", f"{start}-model:gpt": "model", f"{start}-simulated:bot": "simulated", f"{start} unnamed": "imported",
    }  # fmt: skip
    assert not any(user.is_active or user.has_usable_password() for user in accounts.values())
    assert sorted(Judgement.objects.values_list("annotator_kind", flat=True)) == ["imported", "imported", "model", "simulated"]
    other = factories.make_project(stranger, slug="other")
    take(other, record(vote(annotator="ada")))
    assert Judgement.objects.filter(annotator=accounts[f"{start}:ada"]).count() == 1
    assert User.objects.filter(username=f"import-{other.pk}:ada").exists()


def test_names_however_long_stay_apart(project):
    long = "x" * 110
    take(project, record(vote(annotator=long + "1"), vote(annotator=long + "2"), vote(annotator=" ada "), vote(annotator="ada")))
    assert Judgement.objects.count() == 3
    assert all(len(name) <= 150 for name in User.objects.values_list("username", flat=True))


def test_the_same_record_again_adds_nothing(project):
    rows = [record(vote(), vote(B_BETTER, "bo"), vote(annotator=""), vote(annotator=""), vote(B_BETTER, annotator=""))]
    assert figures(take(project, *rows)) == (1, 0, 5, 0)
    before = everything(project)
    assert figures(take(project, *rows)) == (0, 1, 0, 0)
    assert everything(project) == before
    assert Task.objects.get().overlap == 5


def test_a_task_made_in_the_project_is_found_again_and_grows(project, annotator):
    factories.fill_project(project, 1, n_completions=2, overlap=2)
    factories.judge_all(project, annotator, limit=1)
    task = project.tasks.get()
    prompt = task.prompt.messages
    texts = [Text(item.content, item.model_key) for item in Completion.objects.order_by("-pk")]
    votes = [vote(annotator="ada"), vote(B_BETTER, "bo")]
    taken = take(project, Record(1, prompt, texts, votes))
    assert figures(taken) == (1, 0, 2, 0) and taken.n_prompts == taken.n_completions == 0
    task.refresh_from_db()
    assert (task.overlap, task.n_judged, task.state) == (4, 3, "open")
    assert sorted(task.slots.values_list("number", "state")) == [(1, "done"), (2, "free"), (3, "done"), (4, "done")]


def test_the_slot_that_was_free_is_still_handed_out(project, annotator, other_annotator):
    factories.fill_project(project, 1, n_completions=2, overlap=1)
    prompt = project.tasks.get().prompt.messages
    take(project, Record(1, prompt, [Text(item.content, item.model_key) for item in Completion.objects.order_by("pk")], [vote()]))
    lease = take_lease(project=project, annotator=annotator)
    submit_judgement(lease=lease, submission_key="k", body={"ranking": [["a", "b"]]})
    task = project.tasks.get()
    assert (task.state, task.overlap, task.n_judged) == ("done", 2, 2)
    assert take_lease(project=project, annotator=other_annotator) is None


def test_one_annotator_counts_once_a_task_whatever_the_order_of_a_tie(project):
    first = take(project, record(vote({"ranking": [["a", "b"]]})), record(vote({"ranking": [["b", "a"]]}), line=2))
    assert figures(first) == (1, 1, 1, 0)
    other = take(project, record(vote(B_BETTER), line=7))
    assert figures(other) == (0, 0, 0, 1)
    assert reasons(other)[0][0] == 7 and "'ada' has judged these completions otherwise" in reasons(other)[0][1]
    assert Judgement.objects.get().ranking == [[*Completion.objects.order_by("pk").values_list("pk", flat=True)]]


def test_votes_of_nobody_in_particular_are_as_many_people_as_differ(project):
    assert figures(take(project, record(vote(annotator="")))) == (1, 0, 1, 0)
    assert figures(take(project, record(vote(annotator="")))) == (0, 1, 0, 0)
    assert figures(take(project, record(vote(B_BETTER, annotator="")))) == (1, 0, 1, 0)
    assert figures(take(project, record(vote(annotator=""), vote(annotator=""), vote(B_BETTER, annotator="")))) == (1, 0, 1, 0)
    assert Task.objects.get().n_judged == 3
    assert Judgement.objects.values("annotator").distinct().count() == 3


def test_nobody_puts_words_into_the_mouth_of_somebody_who_works_here(project, annotator, other_annotator):
    factories.fill_project(project, 1, n_completions=2)
    factories.judge_all(project, annotator)
    judged = Judgement.objects.get()
    pseudonym = project.memberships.get(user=annotator).pseudonym
    texts = [Text(item.content, item.model_key) for item in Completion.objects.filter(pk__in=judged.order_shown).order_by("pk")]
    same = Record(1, judged.task.prompt.messages, texts, [vote(annotator=pseudonym)])
    assert figures(take(project, same)) == (0, 1, 0, 0)
    for name, line in ((pseudonym, 2), (project.memberships.get(user=other_annotator).pseudonym, 3)):
        taken = take(project, Record(line, same.prompt, texts, [vote(B_BETTER, name)]))
        assert figures(taken) == (0, 0, 0, 1) and "somebody of this project" in reasons(taken)[0][1]
    assert Judgement.objects.count() == 1


def test_what_annotators_wrote_is_kept_as_theirs(project):
    written = vote({"corrections": {"b": "There, on the left."}, "demonstration": "Look under the table."})
    taken = take(project, record(written), record(written, line=2))
    assert figures(taken) == (1, 1, 1, 0) and taken.n_completions == 4
    ada = User.objects.get(username=f"import-{project.pk}:ada")
    there = Completion.objects.get(content="There.")
    found = Completion.objects.filter(author=ada).order_by("content").values_list("content", "corrects", "model_key")
    assert list(found) == [("Look under the table.", None, ""), ("There, on the left.", there.pk, "")]
    assert Judgement.objects.get().feedback["corrections"] == {str(there.pk): "There, on the left."}
    assert Task.objects.get().completions.count() == 2
    take(project, record(written, line=3))
    assert Completion.objects.count() == 4


def test_an_order_nobody_knows_says_nothing_of_position(project):
    take(project, *(record(vote(), prompt=f"Question {word}?", line=number) for number, word in enumerate(("one", "two", "three"), 1)))
    judgement = Judgement.objects.first()
    assert judgement.order_shown == []
    assert judgement_body(judgement) == {"ranking": [["a"], ["b"]]}
    figures_of_all = compute_report(project=project).figures
    assert figures_of_all["position_bias"]["value"] is None
    assert figures_of_all["n_votes"] == 3


def test_judgements_are_exported_as_they_came(project, lead):
    take(project, record(vote(B_BETTER, at=AT), iteration=3))
    snapshot = create_snapshot(project=project, created_by=lead)
    assert snapshot.n_pairs == 1


def test_a_guideline_of_that_version_is_the_one_they_judged_under(project, lead):
    second = publish_guideline(project=project, markdown="Shorter.", created_by=lead)
    take(project, record(vote(guideline_version=2), vote(annotator="bo", guideline_version=9)))
    assert set(Judgement.objects.values_list("guideline", flat=True)) == {second.pk, None}


def test_a_group_keeps_prompts_in_one_split(project):
    take(project, record(group="tree 1"), record(prompt="And now?", group="tree 1", line=2), record(prompt="Else?", line=3))
    groups = Prompt.objects.order_by("pk").values_list("group_id", flat=True)
    assert groups[0] == groups[1] != groups[2]


def test_texts_no_vote_can_tell_apart_are_no_task(project):
    taken = take(project, record(vote(), texts=("Same.", "Same.")))
    assert figures(taken) == (1, 0, 0, 1) and "word for word" in reasons(taken)[0][1]
    assert (Prompt.objects.count(), Completion.objects.count(), Task.objects.count()) == (1, 1, 0)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (record(texts=("  ",)), "completions[0].content"),
        (record(texts=("nul \x00",)), "NUL"),
        (record(prompt="half \ud800"), "surrogate"),
        (record(source="s" * 201), "source"),
        (record(tags=["t" * 61]), "tags"),
        (record(vote(at=datetime(1, 1, 1, tzinfo=UTC))), "at"),
        (record(vote(annotator="a\x00")), "NUL"),
        (record(vote({**A_BETTER, "rationale": "\ud800"})), "surrogate"),
        (Record(1, [{"role": "user", "content": "x"}], [Text("y", "m" * 121)]), "model"),
        (Record(1, [{"role": "user", "content": "x"}], [Text("y", sampling={"t": "\x00"})]), "NUL"),
        (Record(1, [{"role": "user", "content": "x"}], [Text("y", sampling={"t": object()})]), "JSON"),
    ],
)
def test_what_no_database_keeps_is_refused_and_its_neighbours_are_taken(project, bad, field):
    taken = take(project, record(vote(), prompt="Before?", line=0), bad, record(vote(), prompt="After?", line=2))
    [(line, reason)] = reasons(taken)
    assert line == 1 and field in reason
    assert taken.n_judgements == 2


def test_a_batch_is_taken_whole_or_not_at_all(project):
    begun = Import.objects.create(project=project, format="votes", state=Import.State.RUNNING)

    def fail(taken: Taken) -> None:
        assert taken.n_judgements == 1
        raise RuntimeError

    taker = Taker(begun)
    with pytest.raises(RuntimeError):
        taker.take(taker.check([record(vote())]), fail)
    assert everything(project) == [0] * 6
    assert figures(taker.take(taker.check([record(vote())]))) == (1, 0, 1, 0)
