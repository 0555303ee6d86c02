"""What leaves through the API is what the libraries of others read: `datasets` by address, and TRL's loaders."""

import hashlib
import json

import pytest

from labeling.annotation.services import submit_judgement, take_lease
from labeling.preferences.services import create_snapshot
from labeling.preferences.views_of_snapshots import VIEWS, rows_in
from labeling.projects.services import change_project
from tests import factories

datasets = pytest.importorskip("datasets")
TABLES = [name for name, view in VIEWS.items() if view.columns]  # the others are records of other tools
FIRST = {"sft": "messages", "hh": "chosen"}


@pytest.fixture
def served(live_server, project, annotator, engineer, monkeypatch, tmp_path):
    """A snapshot of every kind of feedback behind a real server: its address and the headers to ask with."""
    form = {"corrections": True, "acceptable": True, "demonstration": "optional", "ratings": {"tone": {"low": 1, "high": 5}}}
    change_project(project=project, form=form)
    factories.fill_project(project, 40)
    while lease := take_lease(project=project, annotator=annotator):
        body = {
            "ranking": [["a"], ["b"], ["c"]], "acceptable": {"a": True, "c": False}, "seconds": 5.0,
            "ratings": {"a": {"tone": 4}, "b": {"tone": 2}},
        }  # fmt: skip
        if lease.pk % 3 == 0:
            body |= {"corrections": {"b": f"Edited by hand, number {lease.pk}."}, "demonstration": f"Mine, {lease.pk}."}
        submit_judgement(lease=lease, submission_key=str(lease.pk), body=body)
    snapshot = create_snapshot(project=project, created_by=engineer)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    headers = {"Authorization": f"Bearer {factories.token_for(engineer)}"}
    return f"{live_server.url}/api/v1/snapshots/{snapshot.pk}/", headers, snapshot


@pytest.mark.parametrize("view", TABLES)
def test_load_dataset_reads_a_view_by_its_address(served, view, tmp_path):
    pytest.importorskip("aiohttp", reason="datasets reads addresses through fsspec[http]")
    address, headers, snapshot = served
    for form, ending in (("parquet", "parquet"), ("json", "jsonl")):
        url = f"{address}train.{ending}?view={view}"
        loaded = datasets.load_dataset(
            form, data_files={"train": url}, storage_options={"headers": headers}, cache_dir=str(tmp_path / form)
        )
        assert loaded["train"].num_rows == rows_in(snapshot, view, "train") > 0
        first = loaded["train"][0][FIRST.get(view, "prompt")]
        assert first if isinstance(first, str) else first[0]["role"] == "user"
        assert set(loaded["train"].column_names) == set(VIEWS[view].columns)


@pytest.mark.parametrize("form, ending", [("json", "jsonl.gz"), ("csv", "csv"), ("csv", "csv.gz")])
def test_load_dataset_reads_the_other_kinds_by_their_address(served, form, ending, tmp_path):
    pytest.importorskip("aiohttp", reason="datasets reads addresses through fsspec[http]")
    address, headers, snapshot = served
    loaded = datasets.load_dataset(
        form, data_files=f"{address}train.{ending}?view=preference_standard", storage_options={"headers": headers},
        cache_dir=str(tmp_path),
    )["train"]  # fmt: skip
    assert loaded.num_rows == rows_in(snapshot, "preference_standard", "train") > 0
    assert loaded[0]["chosen"].startswith(" ") and isinstance(loaded[0]["weight"], float)


@pytest.mark.parametrize("view", TABLES)
def test_load_dataset_reads_a_view_once_it_is_downloaded(served, view, tmp_path):
    import httpx

    address, headers, snapshot = served
    for form, ending in (("parquet", "parquet"), ("json", "jsonl")):
        path = tmp_path / f"train.{ending}"
        path.write_bytes(httpx.get(f"{address}train.{ending}?view={view}", headers=headers).content)
        loaded = datasets.load_dataset(form, data_files=str(path), cache_dir=str(tmp_path / form))["train"]
        assert loaded.num_rows == rows_in(snapshot, view, "train") > 0


def test_a_download_broken_off_goes_on_where_it_stopped(served):
    httpx = pytest.importorskip("httpx")
    address, headers, _ = served
    with httpx.Client(headers=headers) as http:
        whole = http.get(address + "train.jsonl")
        half = len(whole.content) // 2
        rest = http.get(address + "train.jsonl", headers={"Range": f"bytes={half}-", "If-Range": whole.headers["etag"]})
    assert rest.status_code == 206 and whole.content[:half] + rest.content == whole.content
    assert whole.headers["etag"].strip('"') == hashlib.sha256(whole.content).hexdigest()


def test_our_own_client_downloads_and_verifies(served, tmp_path):
    from training.client.client import Client

    address, headers, snapshot = served
    with Client(address.split("/api/")[0], headers["Authorization"].removeprefix("Bearer ")) as client:
        path = client.download_snapshot(str(snapshot.pk), "train", view="votes", path=tmp_path / "votes.jsonl")
        tasks = client.download_snapshot(str(snapshot.pk), "train", "json", view="argilla", path=tmp_path / "records.json")
        taken = client.import_rows("support", "prompts", ({"prompt": f"streamed {number}"} for number in range(3)))
    assert taken["taken"] == 3
    assert len(path.read_bytes().splitlines()) == snapshot.manifest["files"]["votes.train.jsonl"]["rows"]
    assert len(json.loads(tasks.read_bytes())) == rows_in(snapshot, "argilla", "train")


def test_trl_takes_the_preference_view_as_it_is(served, tmp_path):
    data_utils = pytest.importorskip("trl.data_utils")
    import httpx

    address, headers, _ = served
    rows = [json.loads(line) for line in httpx.get(address + "train.jsonl", headers=headers).text.splitlines()]
    data = datasets.Dataset.from_list(rows)
    assert data_utils.is_conversational(data[0])
    again = data_utils.maybe_extract_prompt(data[0])
    assert again["prompt"] == data[0]["prompt"] and again["chosen"] == data[0]["chosen"]
    halves = data_utils.unpair_preference_dataset(data.select_columns(["prompt", "chosen", "rejected"]))
    assert halves.num_rows == 2 * data.num_rows and set(halves.column_names) == {"prompt", "completion", "label"}
