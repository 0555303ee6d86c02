"""Which snapshots a run of SFT or KTO is refused, and real runs of both through the worker."""

import json
import shutil

import pytest
import yaml

from labeling.accounts.roles import Role
from labeling.annotation.services import submit_judgement, take_lease
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.projects.services import add_member, change_project
from labeling.projects.text import split_of
from tests import factories
from training.registry.selectors import lineage_of
from training.runs import learnable
from training.runs.errors import BadSpec
from training.runs.folder import run_folder, write_inputs
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run
from training.runs.watch import watch_run

FAST = {"max_steps": 2, "per_device_train_batch_size": 4, "sample_every_steps": 0, "save_steps": 1}
FORM = {"corrections": True, "acceptable": True, "demonstration": "optional"}


@pytest.fixture
def freeze(project, annotator, lead):
    """Makes a snapshot of tasks on which all was said that `says` answers to their lease."""

    def freeze(says, n=16):
        change_project(project=project, form=FORM, eval_share=0.25)
        factories.fill_project(project, n)
        while lease := take_lease(project=project, annotator=annotator):
            body = {"ranking": [["a"], ["b"], ["c"]], **says(lease)}
            submit_judgement(lease=lease, submission_key=str(lease.pk), body=body)
        return create_snapshot(project=project, created_by=lead)

    return freeze


def everything(lease):
    return {
        "acceptable": {"a": True, "b": True, "c": False},
        "corrections": {"b": f"Edited by hand, number {lease.pk}."},
        "demonstration": f"Written by hand, number {lease.pk}.",
    }


def run_of(kind, snapshot, model, lead, **spec):
    return create_run(
        project=snapshot.project, kind=kind, created_by=lead, snapshot=snapshot, model=model, spec={**FAST, **spec}
    )


def refusal(*args, **spec):
    with pytest.raises(BadSpec) as refused:
        run_of(*args, **spec)
    assert not Run.objects.exists()
    return refused.value.fields


def execute(run):
    claimed = claim_next_run(owner="test")
    assert claimed == run
    watch_run(claimed)
    run.refresh_from_db()
    return run


def rows_given(run, split="train"):
    return [json.loads(line) for line in (run_folder(run) / "dataset" / f"{split}.jsonl").read_text().splitlines()]


@pytest.mark.recipe
def test_an_sft_run_and_a_kto_run_from_its_policy_register_policies(freeze, tiny, lead):
    snapshot = freeze(everything)
    sft = execute(run_of("sft", snapshot, tiny, lead, sources=["correction", "demonstration"]))
    assert (sft.state, sft.error) == (Run.State.DONE, "")
    given = rows_given(sft)
    assert {row["source"] for row in given} == {"best", "correction", "demonstration"}
    assert len(given) == snapshot.manifest["views"]["sft.train"]
    counts = sft.result["dataset"]
    n = sum(row["source"] == "correction" for row in given)
    assert (counts["n_train_correction"], counts["n_train_demonstration"], counts["n_train"]) == (n, n, 2 * n)
    assert counts["n_eval"] > 0 and "n_train_best" not in counts
    policy = sft.output_model
    assert (policy.key, policy.kind, policy.parent, policy.base) == ("support-sft@1", "policy", tiny, tiny)
    assert policy.lineage["recipe"] == "sft"
    assert policy.metrics["loss"]["n"] == counts["n_eval"]
    # Texts may come from tasks without a pair, whose licences the snapshot's pairs do not tell.
    assert policy.lineage["licences"] == {"CC0-1.0": 2 * n}
    snapshot.manifest["pairs_by_licence"] = {}
    snapshot.save()
    assert lineage_of(policy).licences == ["Apache-2.0", "CC0-1.0"]

    kto = execute(run_of("kto", snapshot, policy, lead))
    assert (kto.state, kto.error) == (Run.State.DONE, "")
    given = rows_given(kto)
    assert {row["label"] for row in given} == {True, False}
    counts = kto.result["dataset"]
    assert counts["n_train"] + counts["n_train_set_aside"] == len(given) == snapshot.manifest["views"]["unpaired.train"]
    assert counts["n_train_desirable"] * counts["desirable_weight"] == pytest.approx(
        counts["n_train_undesirable"] * counts["undesirable_weight"]
    )
    assert (kto.output_model.parent, kto.output_model.base) == (policy, tiny)
    assert kto.output_model.metrics["rewards/auc"]["n"] == len(rows_given(kto, "eval"))


def test_kto_is_given_pairs_where_nobody_was_asked_what_is_acceptable(freeze, tiny, lead):
    snapshot = freeze(lambda lease: {})
    fields = refusal("kto", snapshot, tiny, lead)
    assert fields == {
        "snapshot": "snapshot #1 holds no completion to train on that was called acceptable or not: ask for it in the "
        "feedback form and freeze again, or set labels_from: pairs to learn from its rankings"
    }
    run = run_of("kto", snapshot, tiny, lead, labels_from="pairs")
    folder = write_inputs(run)
    assert {"chosen", "rejected", "soft_label"} <= set(rows_given(run)[0])
    assert len(rows_given(run)) + len(rows_given(run, "eval")) == snapshot.n_pairs
    assert yaml.safe_load((folder / "spec.yaml").read_text())["labels_from"] == "pairs"
    assert json.loads((folder / "dataset" / "manifest.json").read_text())["view"] == "preference"


@pytest.mark.parametrize(("label", "said"), [(True, "on acceptable, and"), (False, "on not acceptable, and")])
def test_a_snapshot_with_one_label_is_refused_for_kto(freeze, tiny, lead, label, said):
    snapshot = freeze(lambda lease: {"acceptable": dict.fromkeys("abc", label)})
    problem = refusal("kto", snapshot, tiny, lead)["snapshot"]
    assert said in problem and "KTO needs both" in problem and "labels_from: pairs" in problem


def test_sft_of_a_snapshot_without_such_texts_is_refused(freeze, tiny, lead, monkeypatch):
    snapshot = freeze(lambda lease: {})
    problem = refusal("sft", snapshot, tiny, lead, sources=["correction", "demonstration"])["snapshot"]
    assert "of the sources correction, demonstration, only of best" in problem
    # A snapshot too long to be read through is left to the recipe.
    monkeypatch.setattr(learnable, "MAX_ROWS_READ", 3)
    assert learnable.why_nothing_to_learn(snapshot, "sft", {"sources": ["correction"]}) == ""


def test_sft_of_held_out_texts_alone_is_refused(freeze, tiny, lead):
    def only_held_out(lease):
        if split_of(lease.task.prompt.group_id, 0.25) == "eval":
            return everything(lease)
        return {"ranking": [["a", "b", "c"]]}

    snapshot = freeze(only_held_out)
    assert snapshot.manifest["views"] == {**snapshot.manifest["views"], "sft.train": 0, "unpaired.train": 0}
    assert snapshot.manifest["views"]["sft.eval"] > 0
    assert "holds no text to train on: collect" in refusal("sft", snapshot, tiny, lead)["snapshot"]
    # Nobody counted the rows of an old snapshot: they are read.
    snapshot.manifest.pop("views")
    assert "holds no text to train on: collect" in refusal("sft", snapshot, tiny, lead)["snapshot"]


def test_a_snapshot_whose_files_are_gone_is_refused(freeze, tiny, lead):
    snapshot = freeze(everything, n=4)
    shutil.rmtree(snapshots_folder() / snapshot.folder)
    assert "files of snapshot #1 are gone" in refusal("kto", snapshot, tiny, lead)["snapshot"]


def test_options_that_neither_kind_can_have_are_refused_first(freeze, tiny, lead):
    snapshot = freeze(everything, n=4)
    assert "must be one of" in refusal("sft", snapshot, tiny, lead, sources=["gold"])["spec.sources"]
    assert "not empty" in refusal("sft", snapshot, tiny, lead, sources=[])["spec.sources"]
    assert "spec.labels_from" in refusal("kto", snapshot, tiny, lead, labels_from=["pairs"])
    fields = refusal("kto", snapshot, tiny, lead, per_device_train_batch_size=1)
    assert "between 2 and" in fields["spec.per_device_train_batch_size"]


# --- reward models of several axes ----------------------------------------------------------------
def rated(lease):
    """What is ranked first is rated lower on tone: one head could not learn both."""
    return {"ratings": {"a": {"facts": 5, "tone": 1}, "b": {"facts": 3, "tone": 3}, "c": {"facts": 1, "tone": 5}}}


@pytest.fixture
def rated_snapshot(freeze, monkeypatch):
    scales = {axis: {"low": 1, "high": 5} for axis in ("facts", "tone", "length")}
    monkeypatch.setitem(FORM, "ratings", scales)
    return freeze(rated)


def test_an_axis_that_nobody_rated_is_refused_by_name(rated_snapshot, tiny, lead):
    said = refusal("reward", rated_snapshot, tiny, lead, sample_every_steps=None, axes=["facts", "length"])["snapshot"]
    assert "by length, only on facts, tone" in said
    assert "twice" in refusal("reward", rated_snapshot, tiny, lead, sample_every_steps=None, axes=["tone", "tone"])["spec.axes"]
    assert "one weight for each" in refusal("reward", rated_snapshot, tiny, lead, sample_every_steps=None, axes=["tone"], axis_weights=[1, 2])["spec.axis_weights"]
    assert "ensemble" in refusal("reward", rated_snapshot, tiny, lead, sample_every_steps=None, axes=["tone"], n_heads=2)["spec.n_heads"]


def test_ratings_become_a_reward_model_of_several_axes(rated_snapshot, tiny, lead, client):
    client.force_login(lead)
    page = client.get(f"/projects/{rated_snapshot.project.slug}/runs/new/?kind=reward")
    assert [value for value, _ in page.context["form"]["option_axes"].field.choices] == ["preference", "facts", "tone", "length"]
    run = run_of("reward", rated_snapshot, tiny, lead, axes=["preference", "facts", "tone"], sample_every_steps=None)
    folder = write_inputs(run)
    rows = [json.loads(line) for line in (folder / "dataset" / "train.jsonl").read_text().splitlines()]
    by_axis = {axis: [row for row in rows if row["axis"] == axis] for axis in ("preference", "facts", "tone")}
    assert len(rows) == sum(map(len, by_axis.values())) and len({len(found) for found in by_axis.values()}) == 1
    assert all(row["tags"] is not None for row in by_axis["tone"])
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert run.state == Run.State.DONE, run.error
    model = run.output_model
    assert "reward_axes.safetensors" in model.files and model.metrics["accuracy_on/tone"]["n"] > 0
    shown = client.get(f"/projects/{rated_snapshot.project.slug}/runs/{run.pk}/report/").content.decode()
    assert "Its axes" in shown and "facts and tone" in shown


# --- labels smoothed by how far people agreed -----------------------------------------------------
@pytest.fixture
def argued(project, annotator, lead):
    """Makes a snapshot of tasks that three people ranked, of whom one has another mind on the first two."""
    people = {annotator: (0, 1, 2), factories.make_user("ben"): (0, 1, 2), factories.make_user("cem"): (1, 0, 2)}
    for person in people:
        if person != annotator:
            add_member(project=project, user=person, role=Role.ANNOTATOR)
    change_project(project=project, eval_share=0.25)
    factories.fill_project(project, 16, overlap=3)
    for person, order in people.items():
        while lease := take_lease(project=project, annotator=person):
            keys = sorted("abc", key=lambda key: lease.order_shown["abc".index(key)])
            submit_judgement(lease=lease, submission_key=str(lease.pk), body={"ranking": [[keys[place]] for place in order]})

    def freeze(**policy):
        return create_snapshot(project=project, created_by=lead, policy=policy)

    return freeze


def test_agreement_smooths_the_labels_of_dpo_pair_by_pair(argued, tiny, lead):
    run = run_of("dpo", argued(), tiny, lead, smoothing_from="agreement", max_pairs_per_group=3)
    write_inputs(run)
    rows = rows_given(run)
    of_first_two = [row for row in rows if row["people"] == {"chosen": 2, "rejected": 1, "tie": 0}]
    assert len(of_first_two) * 3 == len(rows) and len({row["comparison"] for row in rows}) == len(rows)
    assert execute(run).state == Run.State.DONE, run.error
    # A third of the pairs has one vote of three against it: a ninth of all votes, which two more votes are as.
    shares = [(against + 2 / 9) / 5 for against in (1, 0, 0)]
    assert run.result["dataset"]["mean_smoothing"] == pytest.approx(sum(shares) / 3, abs=1e-5)


def test_agreement_is_refused_where_nobody_judged_what_another_did(freeze, tiny, lead):
    said = refusal("dpo", freeze(lambda lease: {}), tiny, lead, smoothing_from="agreement")["spec.smoothing_from"]
    assert "two people judged no pair" in said and "label_smoothing" in said


def test_agreement_is_refused_where_it_would_count_twice_or_change_nothing(argued, tiny, lead):
    each = argued(votes="each")
    assert "a pair for each vote" in refusal("dpo", each, tiny, lead, smoothing_from="agreement")["spec.smoothing_from"]
    fields = refusal("dpo", argued(), tiny, lead, smoothing_from="agreement", loss_type=["ipo"])
    assert "the losses are ipo" in fields["spec.smoothing_from"]
    assert "add sigmoid or robust" in refusal("dpo", argued(), tiny, lead, label_smoothing=0.1, loss_type=["hinge"])["spec.label_smoothing"]
