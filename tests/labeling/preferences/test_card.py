"""The dataset card: what it says is what the rows say, and the hub's own reader takes its head."""

import json

import pytest
import yaml
from django.core.management import call_command
from django.core.management.base import CommandError

from labeling.accounts.models import User
from labeling.preferences.card import body_of, card_of, known_limits
from labeling.preferences.figures import figures_of_snapshot
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.verification import verify
from labeling.preferences.withdrawal import withdraw_person
from labeling.projects.models import Project, Prompt
from labeling.projects.services import add_member
from labeling.projects.text import sha256
from labeling.quality.services import quality_figures
from tests import factories
from tests.api_caller import Caller


@pytest.fixture
def snapshot(project, annotator, other_annotator, lead):
    factories.fill_project(project, 30, overlap=2)
    factories.judge_all(project, annotator)
    factories.judge_all(project, other_annotator, limit=12)
    return create_snapshot(project=project, created_by=lead, name="first")


def head_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_head_is_what_the_hub_reads(snapshot):
    head = head_of(card_of(snapshot))
    assert head["license"] == "cc0-1.0" and head["size_categories"] == ["n<1K"] and "language" not in head
    configs = {config["config_name"]: config for config in head["configs"]}
    assert configs["preference"]["default"] is True and {"sft", "unpaired", "pairs", "votes"} & configs.keys()
    assert configs["preference"]["data_files"] == [
        {"split": split, "path": f"preference/{split}.parquet"} for split in ("train", "eval")
    ]
    hub = pytest.importorskip("huggingface_hub")
    card = hub.DatasetCard(card_of(snapshot))
    assert card.data.license == "cc0-1.0" and card.data.pretty_name == "Support replies, snapshot 1"


def test_several_licences_are_listed_one_that_the_hub_does_not_know_is_other_and_none_is_unknown(project, annotator, lead):
    factories.fill_project(project, 3)
    factories.judge_all(project, annotator)
    first = project.prompts.order_by("pk").first()
    heads = []
    for licence in ("MIT", "our own", ""):
        Prompt.objects.filter(pk=first.pk).update(licence=licence)
        heads.append(head_of(card_of(create_snapshot(project=project, created_by=lead))))
    assert heads[0]["license"] == ["cc0-1.0", "mit"]
    assert heads[1]["license"] == "other" and heads[1]["license_name"] == "CC0-1.0 and our own"
    assert heads[2]["license"] == "unknown"


def test_languages_that_tags_name_are_in_the_head(project, annotator, lead):
    factories.fill_project(project, 4)
    factories.judge_all(project, annotator)
    Prompt.objects.filter(project=project).update(tags=["English", "stem", "de"])
    assert head_of(card_of(create_snapshot(project=project, created_by=lead)))["language"] == ["de", "en"]


def test_its_figures_are_of_the_frozen_votes_as_quality_counts_them(snapshot, project):
    figures = figures_of_snapshot(snapshot)
    live = quality_figures(project)
    for name in ("pairwise_raw", "krippendorff_alpha_symmetric"):
        assert figures["agreement"][name] == live["agreement"][name]
    assert figures["position_bias"]["value"] == pytest.approx(live["position_bias"]["value"])
    assert figures["position_bias"]["n"] == live["position_bias"]["n"] == 42
    assert figures["votes_a_task"] == {"1": 18, "2": 12} and figures["n_prompts"] == 30
    assert figures["sources"] == {"tests": 30} and figures["completions_by_model"] == {"tiny@1": 90}


def test_the_text_says_who_judged_what_and_how(snapshot, project):
    text = body_of(card_of(snapshot))
    assert text.startswith("# Support replies, snapshot 1\n") and "by 2 people; frozen" in text
    assert f"`{snapshot.content_hash}`" in text and "not by people" not in text
    assert f"`{sha256(project.guideline.markdown)[:16]}…`" in text
    for file in snapshot.manifest["files"].values():
        assert file["sha256"] in text


def test_simulated_annotators_are_never_taken_for_people(project, annotator, lead):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    add_member(project=project, user=robot, role="annotator")
    factories.fill_project(project, 8, overlap=2)
    factories.judge_all(project, annotator)
    factories.judge_all(project, robot)
    card = card_of(create_snapshot(project=project, created_by=lead))
    assert "**50% of the judgements were not made by people**" in card
    assert "by 1 person and 1 simulated annotator (a program); frozen" in card
    assert "people alone" in card and "all annotators" in card
    Project.objects.filter(pk=project.pk).update(name="Machines")
    project.refresh_from_db()
    factories.fill_project(project, 9)
    factories.judge_all(project, robot)
    only = card_of(create_snapshot(project=project, created_by=lead, filters={"annotator_kinds": ["simulated"]}))
    assert "synthetic" in head_of(only)["tags"] and "human-feedback" not in head_of(only)["tags"]
    assert "One annotator alone, and no person." in only


def test_known_limits_are_counted_and_what_was_withdrawn_since_comes_first(snapshot, project, annotator, lead):
    withdraw_person(project=project, annotator=annotator, by=lead)
    limits = list(known_limits(snapshot, figures_of_snapshot(snapshot)))
    assert limits[0].startswith("**It holds rows that were withdrawn since: 30 judgements of 1 person.**")
    assert any("It is small" in text for text in limits) and any("pairs to evaluate on" in text for text in limits)
    assert any("One annotator gave 71%" in text for text in limits)
    assert any("One model wrote every completion: tiny@1" in text for text in limits)


def test_texts_of_people_stay_texts(project, annotator, lead):
    hostile = "x | y\n# no\n<script>alert(1)</script> [a](javascript:b) `c`"
    factories.fill_project(project, 3)
    factories.judge_all(project, annotator)
    Prompt.objects.filter(project=project).update(source=hostile, licence="a: b\n---\nc")
    Project.objects.filter(pk=project.pk).update(name="a: [b] #c", description=hostile)
    card = card_of(create_snapshot(project=Project.objects.get(pk=project.pk), created_by=lead))
    assert head_of(card)["pretty_name"] == "a: [b] #c, snapshot 1"
    assert "<script>" not in body_of(card) and "\n# no" not in card


def test_a_folder_with_its_card_is_loaded_by_datasets(snapshot, tmp_path):
    call_command("export_snapshot", "support", "--number=1", f"--output={tmp_path / 'out'}", "--card", "--view=preference", "--view=votes")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "preference", "votes"]
    head = head_of((tmp_path / "out" / "README.md").read_text())
    assert [config["config_name"] for config in head["configs"]] == ["preference", "votes"]
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(tmp_path / "out"), "preference", cache_dir=str(tmp_path / "cache"))
    rows = {split: snapshot.manifest["files"][f"pairs.{split}.jsonl"]["rows"] for split in ("train", "eval")}
    assert {split: found[split].num_rows for split in rows} == rows


def test_the_command_refuses_what_cannot_be(snapshot, tmp_path):
    for arguments in (
        ["support"], ["support", str(tmp_path / "a.jsonl"), "--output", str(tmp_path)],
        ["support", str(tmp_path / "a.jsonl"), "--card"], ["support", "--output", str(tmp_path), "--split", "train"],
        ["support", "--output", str(tmp_path), "--view", "argilla", "--format", "parquet"],
    ):  # fmt: skip
        with pytest.raises(CommandError):
            call_command("export_snapshot", *arguments, "--number=1")


# --- verifying ----------------------------------------------------------------------------------
def test_a_snapshot_is_as_it_was_frozen_until_a_byte_of_it_is_another(snapshot, capsys):
    assert [checked.problem for checked in verify(snapshot)] == [""] * 6
    call_command("verify_snapshots", "support")
    assert "as it was frozen" in capsys.readouterr().out
    path = snapshots_folder() / snapshot.folder / "pairs.train.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"parcel", b"parcle", 1))
    assert [checked.name for checked in verify(snapshot) if checked.problem] == ["pairs.train.jsonl"]
    with pytest.raises(CommandError, match="1 of 1"):
        call_command("verify_snapshots")
    path.unlink()
    assert next(checked.problem for checked in verify(snapshot) if checked.name == path.name) == "is missing"


def test_over_rest_the_card_is_markdown_and_a_check_says_what_is_wrong(snapshot, engineer, stranger):
    caller = Caller(engineer)
    answer = caller.get(f"snapshots/{snapshot.pk}/card/")
    assert answer.status_code == 200 and answer["Content-Type"] == "text/markdown; charset=utf-8"
    assert f"/api/v1/snapshots/{snapshot.pk}/" in answer.content.decode()
    checked = caller.get(f"snapshots/{snapshot.pk}/verify/").json()
    assert checked["ok"] is True and len(checked["checked"]) == 6
    (snapshots_folder() / snapshot.folder / "votes.eval.jsonl").write_bytes(b"")
    assert caller.get(f"snapshots/{snapshot.pk}/verify/").json()["ok"] is False
    for path in ("card", "verify"):
        assert Caller(stranger).get(f"snapshots/{snapshot.pk}/{path}/").status_code == 404


def test_its_pages_show_the_card_and_check_the_files(client, snapshot, reviewer):
    client.force_login(reviewer)
    page = client.get("/projects/support/snapshots/1/card/").content.decode()
    assert "Known limits</h2>" in page and "pretty_name" not in page
    raw = client.get("/projects/support/snapshots/1/card.md")
    assert raw["Content-Disposition"] == 'attachment; filename="support-1-README.md"'
    assert b"pretty_name" in raw.content
    part = client.get("/projects/support/snapshots/1/verify/", headers={"HX-Request": "true"}).content.decode()
    assert "As it was frozen" in part and "<h1" not in part
    manifest = json.loads((snapshots_folder() / snapshot.folder / "manifest.json").read_text())
    (snapshots_folder() / snapshot.folder / next(iter(manifest["files"]))).unlink()
    page = client.get("/projects/support/snapshots/1/verify/").content.decode()
    assert "is missing" in page and "<h1" in page
