"""The bench before it is saved, and what annotators report, as leads see it."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.annotation.models import Lease, PromptReport, Slot, Task
from labeling.annotation.services import report_prompt, skip_lease, take_lease
from labeling.projects.models import Project, Prompt
from labeling.projects.presets import PRESETS
from labeling.projects.rows import AxisRow
from labeling.projects.services import add_member, change_project
from tests import factories
from tests.api_caller import Caller, code_of

PREVIEW, REPORTS = "/projects/support/preview/", "/projects/support/reports/"
BENCH = {"system_prompts": "shown", "fold_turns": "6", "daily_cap": "0", "break_minutes": "50"}
# What of a preset its bench shows, by a mark in the page.
SHOWN = {
    "pair": ("layout-pair", "much better"), "several": ("layout-tiers", "Not ranked yet"), "rate": ("layout-rating", "choice-scale"),
    "good": ("layout-rating", 'data-part="acceptable"'), "correct": ("data-correction-field",), "mark": ("data-marks-field",),
    "write": ("layout-writing", "data-demonstration-field"),
    "everything": ("layout-tiers", "choice-scale", "data-marks-field", "data-correction-field"),
}  # fmt: skip


def sent(form: dict, **more: object) -> dict:
    """The fields of the builder for this form."""
    data: dict = {name: "on" for name, value in form.items() if value is True}
    data |= {name: form[name] for name in ("rationale", "demonstration", "required", "flags", "marks")}
    data |= {f"asks_{part}": "on" for part in ("ratings", "flags", "marks") if form[part]}
    data["axis"] = [str(number) for number in range(len(form["ratings"]))]
    for number, axis in enumerate(form["ratings"].items()):
        row = AxisRow.of(number, *axis)
        data |= {f"axis.{number}.{key}": getattr(row, key) for key in ("name", "low", "high", "help")}
        data |= {f"axis.{number}.word.{step}": word for step, word in row.words.items()}
    return BENCH | data | more


def counts() -> list[int]:
    return [model.objects.count() for model in (Project, Prompt, Task, Slot, Lease)]


# --- the preview --------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
@pytest.mark.parametrize("where", ["/projects/new/preview/", PREVIEW])
def test_each_preset_is_drawn_by_the_bench_and_nothing_is_written(client, project, lead, preset, where):
    factories.fill_project(project, 2, n_completions=4)
    client.force_login(lead)
    before = counts(), project.form
    answer = client.post(where, sent(preset.form), headers={"X-Preview": "1"})
    page = answer.content.decode()
    assert answer.status_code == 200
    for mark in SHOWN[preset.key]:
        assert mark in page, mark
    assert ("about parcel 0" in page) == (where == PREVIEW and preset.key != "write")
    project.refresh_from_db()
    assert (counts(), project.form) == before
    assert "<html" not in page
    assert "<html" in client.post(where, sent(preset.form)).content.decode()  # full size


def test_the_preview_shows_what_the_settings_of_the_bench_do(client, project, lead):
    client.force_login(lead)
    form = sent(PRESETS[0].form)

    def drawn(**changes: str) -> str:
        return client.post("/projects/new/preview/", form | changes, headers={"X-Preview": "1"}).content.decode()

    assert "You answer customers" in drawn()
    assert "You answer customers" not in drawn(system_prompts="hidden")
    assert "data-folded-turns" in drawn(fold_turns="1")
    assert "<strong>grim</strong>" in drawn(content_warning="Some are **grim** <script>alert(1)</script>")
    assert "<script" not in drawn(content_warning="Some are **grim** <script>alert(1)</script>")
    assert 'data-blur="1"' in drawn(blur="on")
    assert "Be kind" in drawn(guideline="Be kind.")
    assert drawn(preview_completions="2").count("data-card=") == 2
    assert drawn(preview_completions="0").count("data-card=") == 2  # a ranking needs two


def test_the_preview_says_what_keeps_it_from_being_drawn(client, project, lead):
    client.force_login(lead)
    form = sent(PRESETS[2].form) | {"axis.0.low": "9"}
    answer = client.post(PREVIEW, form, headers={"X-Preview": "1"})
    assert answer.status_code == 422
    assert answer.content.decode() == "Rate each completion: The scale runs upwards: 9 is not below 5"
    full = client.post(PREVIEW, form)
    assert full.status_code == 422
    assert "9 is not below 5" in full.content.decode()
    nothing = client.post(PREVIEW, sent(PRESETS[3].form) | {"acceptable": []}, headers={"X-Preview": "1"})
    assert "asks for nothing" in nothing.content.decode()


def test_readers_see_the_bench_as_it_is_saved_and_may_not_try_another(client, project, reviewer, annotator):
    change_project(project=project, form=PRESETS[3].form)
    client.force_login(reviewer)
    assert 'data-part="acceptable"' in client.get(PREVIEW).content.decode()
    assert client.post(PREVIEW, sent(PRESETS[0].form)).status_code == 403
    client.force_login(annotator)
    assert client.get(PREVIEW).status_code == 404


# --- reports ------------------------------------------------------------------------------------
@pytest.fixture
def reported(project, annotator, other_annotator):
    """Two prompts reported, one of them twice, and two tasks skipped."""
    factories.fill_project(project, 4, overlap=2)
    first, second = take_lease(project=project, annotator=annotator), None
    report_prompt(lease=first, reason="personal_data", note="a name & an <b>address</b>")
    skip_lease(lease=first, reason="needs_expert", note="law")
    second = take_lease(project=project, annotator=annotator)
    report_prompt(lease=second, reason="broken")
    skip_lease(lease=second, reason="odd")
    other = take_lease(project=project, annotator=other_annotator)
    assert other.task_id == first.task_id
    report_prompt(lease=other, reason="harmful")
    return first.task.prompt


def test_reports_are_grouped_by_prompt_with_their_words_and_the_text(client, project, reported, reviewer):
    client.force_login(reviewer)
    answer = client.get(REPORTS)
    page = answer.content.decode()
    assert [(row.pk, len(row.open_reports), row.n_open) for row in answer.context["page"]["rows"]][-1] == (
        reported.pk,
        2,
        1,
    )
    assert "a name &amp; an &lt;b&gt;address&lt;/b&gt;" in page
    assert "It holds personal data" in page
    assert "Where is my amber parcel" in page
    assert answer.context["skips"] == [("no reason given", 1), ("It needs an expert", 1)]
    assert ">odd<" in page and ">law<" in page
    assert 'value="keep"' not in page  # a reviewer reads
    assert client.post(REPORTS, {"report": "1", "do": "keep"}).status_code == 403


@pytest.mark.parametrize(("do", "state", "task_state"), [("keep", "kept", "open"), ("close", "closed_tasks", "closed")])
def test_a_lead_settles_all_reports_of_a_prompt_at_once(client, project, reported, lead, do, state, task_state):
    client.force_login(lead)
    report = PromptReport.objects.filter(prompt=reported).first()
    answer = client.post(REPORTS, {"report": report.pk, "do": do}, follow=True)
    assert set(PromptReport.objects.filter(prompt=reported).values_list("state", "settled_by__username")) == {
        (state, "lead")
    }
    assert Task.objects.get(prompt=reported).state == task_state
    assert [row.pk for row in answer.context["page"]["rows"]] != []
    assert reported.pk not in [row.pk for row in answer.context["page"]["rows"]]
    assert len(answer.context["settled"]) == 2
    # Again, from a page that was open meanwhile.
    again = client.post(REPORTS, {"report": report.pk, "do": "close"}, follow=True)
    assert "settled already" in again.content.decode()
    assert Task.objects.get(prompt=reported).state == task_state


@pytest.mark.parametrize(
    "body",
    [{}, {"report": "x"}, {"report": "9" * 30, "do": "keep"}, {"report": "REPORT"}, {"report": "REPORT", "do": "burn"}],
)
def test_a_post_that_says_nothing_settles_nothing(client, project, reported, lead, body):
    client.force_login(lead)
    if body.get("report") == "REPORT":
        body = body | {"report": PromptReport.objects.first().pk}
    assert client.post(REPORTS, body).status_code == 302
    assert not PromptReport.objects.exclude(state="open").exists()


def test_a_report_of_another_project_is_not_settled(client, project, reported, lead):
    other = factories.make_project(lead, slug="other")
    client.force_login(lead)
    client.post(f"/projects/{other.slug}/reports/", {"report": PromptReport.objects.first().pk, "do": "close"})
    assert not PromptReport.objects.exclude(state="open").exists()


def test_the_menu_and_the_front_page_say_how_many_prompts_wait(client, project, reported, lead):
    client.force_login(lead)
    page = client.get("/projects/support/")
    assert '<span class="nav-count">2<' in page.content.decode()
    assert "2 prompts were reported by annotators." in [line.text for line in page.context["advice"]]


def test_the_number_of_queries_does_not_grow_with_the_reports(client, project, lead, annotator, other_annotator):
    def queries() -> int:
        client.get(REPORTS)
        with CaptureQueriesContext(connection) as seen:
            assert client.get(REPORTS).status_code == 200
        return len(seen)

    def report(person, n: int) -> None:
        for number in range(n):
            lease = take_lease(project=project, annotator=person)
            report_prompt(lease=lease, reason="other", note=f"note {number}")
            skip_lease(lease=lease, reason="broken", note="cut off")

    client.force_login(lead)
    factories.fill_project(project, 25, overlap=2)
    report(annotator, 2)
    client.post(REPORTS, {"report": PromptReport.objects.first().pk, "do": "keep"})
    few = queries()
    report(annotator, 20)
    report(other_annotator, 10)
    client.post(REPORTS, {"report": PromptReport.objects.last().pk, "do": "keep"})
    assert queries() <= few


def test_settled_reports_have_a_page_of_their_own_by_keyset(client, project, lead, annotator):
    factories.fill_project(project, 60)
    for _ in range(60):
        lease = take_lease(project=project, annotator=annotator)
        report_prompt(lease=lease, reason="other")
        skip_lease(lease=lease)
    PromptReport.objects.update(state="kept")
    client.force_login(lead)
    first = client.get(REPORTS + "?state=settled").context["page"]
    second = client.get(REPORTS + "?" + first["older"]).context["page"]
    assert (len(first["rows"]), len(second["rows"])) == (50, 10)


def test_reports_are_listed_over_rest_under_pseudonyms(project, reported, reviewer, annotator, stranger):
    rows = Caller(reviewer).get("projects/support/reports/").json()["results"]
    assert [row["reason"] for row in rows] == ["harmful", "broken", "personal_data"]
    assert rows[2] | {"id": "", "annotator": "", "created_at": ""} == {
        "id": "", "prompt": str(reported.pk), "external_id": "p0", "reason": "personal_data",
        "note": "a name & an <b>address</b>", "annotator": "", "state": "open", "created_at": "", "settled_at": None,
    }  # fmt: skip
    assert rows[2]["annotator"] == project.memberships.get(user=annotator).pseudonym
    assert Caller(reviewer).get("projects/support/reports/?state=kept").json()["results"] == []
    wrong = Caller(reviewer).get("projects/support/reports/?state=lost")
    assert wrong.status_code == 400 and code_of(wrong) == "invalid"
    assert Caller(annotator).get("projects/support/reports/").status_code == 403
    assert Caller(stranger).get("projects/support/reports/").status_code == 404
    add_member(project=project, user=stranger, role="engineer")
    assert Caller(stranger).get("projects/support/reports/").status_code == 200
