"""The pages a lead imports with: send a file, look, start, follow."""

import io
import json
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils.timezone import now

from labeling.imports.services import import_rows, run_next_import, start_import
from labeling.imports.storage import file_of, folder_of, receive
from labeling.projects.models import Import, Prompt
from tests import factories

pytestmark = pytest.mark.django_db

TABLE = b"question,good,bad,who\nWhere is it?,On the shelf.,No idea.,ada\nWhen?,<b>Friday</b>,,bo\n"
STUDIO = [
    {
        "id": 1,
        "data": {"prompt": "Where?", "answer1": "Here.", "answer2": "There."},
        "annotations": [
            {
                "id": 7, "completed_by": 3, "created_at": "2025-01-01T00:00:00Z",
                "result": [{"from_name": "cmp", "to_name": "cmp", "type": "pairwise", "value": {"selected": "left"}}],
            }
        ],
    }
]  # fmt: skip
CONFIG = """<View><Text name="p" value="$prompt"/><Text name="answer1" value="$answer1"/>
<Text name="answer2" value="$answer2"/><Pairwise name="cmp" toName="answer1,answer2"/></View>"""


def at(project, rest: str = "") -> str:
    return f"/projects/{project.slug}/import/{rest}"


def send(client, project, content: bytes, name: str = "rows.jsonl"):
    return client.post(at(project), {"file": SimpleUploadedFile(name, content)}, follow=True)


def choices(answer, **changes) -> dict[str, str]:
    """The form of the page as a browser would send it."""
    form = answer.context["form"]
    return {name: str(form[name].value() or "") for name in form.fields} | changes


@pytest.fixture
def lead_client(client, lead):
    client.force_login(lead)
    return client


def test_a_file_is_looked_at_and_taken_only_when_somebody_says_so(lead_client, project):
    rows = b"\n".join([*factories.completions_rows(2), b'{"promt": "x"}', factories.completions_rows(1)[0]])
    page = send(lead_client, project, rows)
    record = Import.objects.get()
    assert page.redirect_chain == [(at(project, f"{record.pk}/check/"), 302)]
    text = page.content.decode()
    assert "nothing is taken yet" in text and "Where is my amber parcel" in text and "Answer 0 about parcel 0." in text
    assert record.state == "draft" and Prompt.objects.count() == 0
    started = lead_client.post(at(project, f"{record.pk}/check/"), choices(page, start="1"))
    assert started.url == at(project, f"{record.pk}/")
    assert "waiting for a worker" in lead_client.get(started.url).content.decode()
    assert run_next_import()
    done = lead_client.get(started.url)
    record = done.context["record"]
    assert (record.n_taken, record.n_duplicates, record.n_rejected) == (2, 1, 1)
    assert '<td class="number">3</td><td class="wrap">' in done.content.decode()
    assert "rows.jsonl" in lead_client.get(at(project)).content.decode()


def test_columns_are_mapped_on_the_page(lead_client, project):
    page = send(lead_client, project, TABLE, "answers.csv")
    record = Import.objects.get()
    path = at(project, f"{record.pk}/check/")
    page = lead_client.post(path, choices(page, format="preference"))
    names = [field.name for field in page.context["form"].column_fields]
    assert {"column_prompt", "column_chosen", "column_rejected"} <= set(names)
    mapped = choices(page, column_prompt="question", column_chosen="good", column_rejected="bad", column_annotator="who")
    page = lead_client.post(path, mapped)
    text = page.content.decode()
    assert "On the shelf." in text and "a &gt; b" in text and "ada" in text
    assert [row.line for row in page.context["preview"].problems] == [3]
    lead_client.post(path, choices(page, start="1", source="survey", licence="CC0-1.0", tags="b, a"))
    assert run_next_import()
    record.refresh_from_db()
    assert record.mapping == {"prompt": "question", "chosen": "good", "rejected": "bad", "annotator": "who"}
    assert (record.state, record.n_judgements, record.n_rejected) == ("done", 1, 1)
    prompt = Prompt.objects.get()
    assert (prompt.source, prompt.licence, prompt.tags) == ("survey", "CC0-1.0", ["a", "b"])


def test_a_labelling_configuration_is_asked_for_before_it_can_start(lead_client, project):
    page = send(lead_client, project, json.dumps(STUDIO).encode(), "export.json")
    record = Import.objects.get()
    path = at(project, f"{record.pk}/check/")
    assert page.context["preview"].format == "label_studio" and "<textarea" in page.content.decode()
    broken = lead_client.post(path, choices(page, start="1", option_config="<View"))
    record.refresh_from_db()
    assert broken.status_code == 422 and "option_config" in broken.context["form"].errors and record.state == "draft"
    page = lead_client.post(path, choices(page, option_config=CONFIG))
    assert page.status_code == 200 and len(page.context["records"]) == 1
    assert lead_client.post(path, choices(page, start="1")).status_code == 302
    assert run_next_import()
    record.refresh_from_db()
    assert (record.state, record.n_judgements) == ("done", 1), record.problem


def test_what_is_no_known_format_is_said_and_another_can_be_chosen(lead_client, project):
    page = send(lead_client, project, b'{"colour": "blue"}\n')
    record = Import.objects.get()
    path = at(project, f"{record.pk}/check/")
    text = page.content.decode()
    assert "No format is recognised" in text and 'value="1" disabled' in text
    assert lead_client.post(path, choices(page, start="1")).status_code == 422
    page = lead_client.post(path, choices(page, format="prompts"))
    assert page.status_code == 200 and page.context["preview"].problems
    assert lead_client.post(path, choices(page, format="pickle")).status_code == 422


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"x" * 100, b"\x89PNG\r\n\x1a\n" + b"x" * 50])
def test_a_file_that_cannot_be_read_is_refused_at_its_field(lead_client, project, content):
    answer = lead_client.post(at(project), {"file": SimpleUploadedFile("a.bin", content)})
    assert answer.status_code == 422 and "file" in answer.context["form"].errors
    assert not Import.objects.exists()


def test_no_file_is_refused_at_its_field(lead_client, project):
    answer = lead_client.post(at(project), {"file": ""})
    assert answer.status_code == 422 and "Choose a file first" in answer.content.decode()


def test_a_file_over_the_limit_is_refused_before_it_is_read(lead_client, project, settings):
    settings.IMPORT_MAX_BYTES = 1000
    answer = send(lead_client, project, b"x" * 300_000)
    assert answer.status_code == 413 and "At most" not in answer.content.decode() and "1,000 bytes" in answer.content.decode()


def test_a_forged_upload_is_refused(lead, project):
    client = Client(enforce_csrf_checks=True)
    client.force_login(lead, backend="django.contrib.auth.backends.ModelBackend")
    answer = client.post(at(project), {"file": io.BytesIO(b'{"prompt": "x"}')})
    assert answer.status_code == 403 and not Import.objects.exists()


def test_a_draft_is_discarded_with_its_file(lead_client, project):
    send(lead_client, project, b'{"prompt": "x"}\n')
    record = Import.objects.get()
    answer = lead_client.post(at(project, f"{record.pk}/drop/"), follow=True)
    assert "nothing of it was taken" in answer.content.decode()
    assert not Import.objects.exists() and not folder_of(record).exists()


def test_an_import_that_was_started_is_neither_dropped_nor_started_twice(lead_client, project):
    page = send(lead_client, project, b'{"prompt": "x"}\n')
    record = Import.objects.get()
    lead_client.post(at(project, f"{record.pk}/check/"), choices(page, start="1"))
    again = lead_client.post(at(project, f"{record.pk}/check/"), choices(page, start="1"))
    assert again.url == at(project, f"{record.pk}/")
    lead_client.post(at(project, f"{record.pk}/drop/"))
    assert Import.objects.get().state == "waiting" and file_of(record).exists()


def test_cancelling_and_going_on(lead_client, project):
    data = iter([b"\n".join(factories.completions_rows(3))])
    record = start_import(
        project=project, path=receive(lambda size: next(data, b"")), filename="a.jsonl", format="completions", enqueue=True
    )
    page = lead_client.post(at(project, f"{record.pk}/cancel/"), follow=True).content.decode()
    assert "cancelled" in page and "Go on after row 0" in page
    page = lead_client.post(at(project, f"{record.pk}/resume/"), follow=True).content.decode()
    assert "waiting for a worker" in page
    assert run_next_import()
    assert "Make tasks" in lead_client.get(at(project, f"{record.pk}/")).content.decode()


def test_a_file_that_came_before_is_called_so(lead_client, project, lead):
    rows = factories.completions_rows(2)
    first = import_rows(project=project, format="completions", lines=rows, created_by=lead)
    page = send(lead_client, project, b"\n".join(rows) + b"\n")
    assert f"as <a href=\"{at(project, f'{first.pk}/')}\">import {first.pk}</a>" in page.content.decode()
    lead_client.post(at(project, f"{Import.objects.order_by('pk').last().pk}/check/"), choices(page, start="1"))
    assert run_next_import()
    assert "nothing new came in" in lead_client.get(at(project, f"{Import.objects.order_by('pk').last().pk}/")).content.decode()


def test_refused_rows_are_listed_and_can_be_fetched(lead_client, project, lead):
    record = import_rows(project=project, format="prompts", lines=[b'{"prompt": ""}', b"no", b'{"prompt": "x"}'], created_by=lead)
    page = lead_client.get(at(project, f"{record.pk}/")).content.decode()
    assert at(project, f"{record.pk}/rejected.jsonl") in page
    got = lead_client.get(at(project, f"{record.pk}/rejected.jsonl"))
    assert [json.loads(line)["line"] for line in b"".join(got.streaming_content).splitlines()] == [1, 2]


def test_a_failed_import_says_why_and_when_it_cannot_go_on(lead_client, project, lead):
    record = import_rows(project=project, format="prompts", lines=[b'{"prompt": "x"}'], created_by=lead)
    Import.objects.update(state="failed", problem="The worker was lost.", finished_at=now() - timedelta(days=30))
    page = lead_client.get(at(project, f"{record.pk}/")).content.decode()
    assert "The worker was lost." in page and "Go on after row 1" in page
    file_of(record).unlink()
    assert "Its file is gone" in lead_client.get(at(project, f"{record.pk}/")).content.decode()


def test_who_only_reads_sees_results_and_sends_nothing(client, project, lead, reviewer):
    record = import_rows(project=project, format="prompts", lines=[b'{"prompt": "x"}'], created_by=lead)
    client.force_login(reviewer)
    page = client.get(at(project)).content.decode()
    assert "Upload and look" not in page and f"/import/{record.pk}/" in page
    assert client.post(at(project), {"file": SimpleUploadedFile("a", b"{}")}).status_code == 403
    assert client.get(at(project, f"{record.pk}/check/")).status_code == 404


def test_the_list_costs_as_many_queries_for_fifty_as_for_one(lead_client, project, lead, django_assert_max_num_queries):
    for number in range(12):
        import_rows(project=project, format="prompts", lines=[json.dumps({"prompt": f"{number}?"}).encode()], created_by=lead)
    lead_client.get(at(project))
    with django_assert_max_num_queries(20):
        assert lead_client.get(at(project)).content.decode().count("✓") == 12


def test_texts_of_a_file_are_shown_and_never_run(lead_client, project):
    page = send(lead_client, project, json.dumps({"prompt": "<script>alert(1)</script>", "completions": ["<img src=x onerror=alert(1)>"]}).encode())
    text = page.content.decode()
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text and "<img src=x" not in text
