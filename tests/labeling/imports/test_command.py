"""`manage.py import_data`: the same code as the pages, from a terminal."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from labeling.imports.services import sweep_imports
from labeling.projects.models import Import, Prompt
from tests import factories
from tests.services.databases import database_url, use_database_file

use_database_file()

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 120


def run(*arguments: str, **options: object) -> str:
    out = io.StringIO()
    call_command("import_data", *arguments, stdout=out, stderr=io.StringIO(), **options)
    return out.getvalue()


@pytest.mark.django_db
def test_a_file_is_imported_with_bad_lines_named_and_an_unclean_exit(project, tmp_path):
    rows = factories.completions_rows(3)
    good, bad = tmp_path / "good.jsonl.gz", tmp_path / "bad.jsonl"
    good.write_bytes(gzip.compress(b"\n".join(rows)))
    # Line 2 is longer than any may be; line 3 must still be called line 3.
    bad.write_bytes(rows[0] + b"\n" + b'"' + b"x" * 3_000_000 + b'"\n' + b"not json\n")
    assert run("support", str(good), format="completions").startswith("3 rows taken, 0 were there")
    assert run("support", str(good), format="completions").startswith("0 rows taken, 3 were there")
    err = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("import_data", "support", str(bad), format="completions", stdout=io.StringIO(), stderr=err)
    assert ended.value.code == 1
    assert [line.split(":")[0] for line in err.getvalue().splitlines()] == ["line 2", "line 3"]
    for wrong in (("support", str(tmp_path / "none")), ("no-project", str(good))):
        with pytest.raises(CommandError):
            run(*wrong)
    assert good.exists() and Import.objects.first().path == str(good)


@pytest.mark.django_db
def test_columns_options_and_where_it_comes_from_are_named(project, tmp_path):
    table = tmp_path / "answers.csv"
    table.write_text("question,good,bad\nWhere?,Here.,Nowhere.\n")
    told = run(
        "support", str(table), "--format", "preference", "--map", "prompt=question", "--map", "chosen=good", "--map",
        "rejected=bad", "--source", "survey", "--licence", "MIT", "--tags", "b, a",
    )  # fmt: skip
    assert told.startswith("1 rows taken") and "1 judgements" in told
    prompt = Prompt.objects.get()
    assert (prompt.source, prompt.licence, prompt.tags) == ("survey", "MIT", ["a", "b"])
    for wrong in (["--map", "prompt"], ["--map", "colour=x"], ["--option", "odd=x"], ["--format", "pickle"], ["--licence", "x" * 90]):
        with pytest.raises(CommandError):
            run("support", str(table), "--format", "preference", *wrong)


@pytest.mark.django_db
def test_an_option_may_stand_in_a_file_of_its_own(project, tmp_path):
    tasks, config = tmp_path / "export.json", tmp_path / "labels.xml"
    result = {"from_name": "cmp", "to_name": "cmp", "type": "pairwise", "value": {"selected": "right"}}
    data = {"prompt": "Where?", "answer1": "Here.", "answer2": "There."}
    tasks.write_text(json.dumps([{"id": 1, "data": data, "annotations": [{"id": 7, "completed_by": 3, "result": [result]}]}]))
    config.write_text(
        '<View><Text name="p" value="$prompt"/><Text name="answer1" value="$answer1"/>'
        '<Text name="answer2" value="$answer2"/><Pairwise name="cmp" toName="answer1,answer2"/></View>'
    )
    assert "1 judgements" in run("support", str(tasks), "--format", "label_studio", "--option", f"config=@{config}")


@pytest.mark.django_db
def test_rows_come_from_standard_input(project, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "x"}\n{"prompt": "y"}\n')))
    assert run("support", "-").startswith("2 rows taken")


@pytest.mark.django_db
def test_a_folder_of_parquet_files_is_one_table(project, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    for number in range(2):
        table = pyarrow.table({"prompt": [f"Question {number} {row}?" for row in range(3)]})
        parquet.write_table(table, tmp_path / f"part-{number}.parquet")
    assert run("support", str(tmp_path)).startswith("6 rows taken")


@pytest.mark.django_db(transaction=True)
def test_a_command_that_was_killed_goes_on_when_it_is_run_again(project, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(factories.completions_rows(9000, 2)))
    environment = {
        **os.environ, "PREFLOOP_DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "manage.py"), "import_data", "support", str(file), "--format", "completions"]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None and not Prompt.objects.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = Import.objects.get()
    assert first.state == "running" and 0 < first.n_rows < 9000
    told = run("support", str(file), "--format", "completions")
    assert told.startswith("9000 rows taken, 0 were there")
    assert Prompt.objects.count() == 9000 and Import.objects.get().pk == first.pk
    # The same choices again are a new import; other choices never go on with an old one.
    assert run("support", str(file), "--format", "completions").startswith("0 rows taken, 9000 were there")
    assert Import.objects.count() == 2


@pytest.mark.django_db
def test_no_worker_takes_over_a_file_that_only_the_command_can_read(project, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"prompt": "x"}')
    run("support", str(file))
    Import.objects.update(state="running", owner=f"{os.uname().nodename}:999999999:1")
    assert sweep_imports() == 1
    record = Import.objects.get()
    assert record.state == "failed" and "Run it again" in record.problem
