"""Console pages of projects, and what all console pages have in common."""

from html.parser import HTMLParser

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.accounts.models import User
from labeling.annotation.services import take_lease
from labeling.projects.feedback import complete_form
from labeling.projects.models import Project
from labeling.projects.presets import PRESETS, TALK
from labeling.projects.services import add_member, change_project, publish_guideline
from tests import factories

PAGES = (
    "", "tasks/", "quality/", "settings/", "people/", "guidelines/", "guidelines/?edit", "prompts/", "import/", "snapshots/",
    "reports/", "reports/?state=settled", "preview/", "snapshots/new/", "runs/", "runs/new/", "runs/new/?kind=sample", "runs/new/?kind=dpo", "runs/new/?kind=sft", "runs/new/?kind=kto", "models/", "iterations/",
    "iterations/new/",
)  # fmt: skip


def address(project: Project, page: str = "") -> str:
    return f"/projects/{project.slug}/{page}"


@pytest.mark.parametrize("page", PAGES)
def test_readers_see_a_page_and_others_learn_nothing_of_it(client, project, page):
    url = address(project, page)
    answer = client.get(url)
    assert answer.status_code == 302
    assert answer.url.startswith("/login/")
    expected = {"lead": 200, "engineer": 200, "reviewer": 200, "annotator": 404}
    for name, status in expected.items():
        client.force_login(User.objects.get(username=name))
        assert client.get(url).status_code == status, name


def test_a_stranger_finds_no_console(client, project, stranger):
    client.force_login(stranger)
    assert client.get(address(project)).status_code == 404


@pytest.mark.parametrize(
    "page", ["", "tasks/", "quality/", "people/", "guidelines/", "prompts/", "import/", "settings/", "preview/"]
)
def test_the_number_of_queries_does_not_grow_with_the_rows(client, project, lead, annotator, other_annotator, page):
    def queries() -> int:
        client.get(address(project, page))
        with CaptureQueriesContext(
            connection,
        ) as seen:
            assert client.get(address(project, page)).status_code == 200
        return len(seen)

    client.force_login(lead)
    factories.fill_project(project, 3, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    take_lease(project=project, annotator=annotator)
    few = queries()
    factories.import_rows(
        project=project, format="completions", lines=factories.completions_rows(27, 3, start=3), created_by=lead
    )
    factories.create_tasks_for_prompts(project=project, completions_per_task=3, overlap=2)
    for number in range(5):
        add_member(project=project, user=factories.make_user(f"more-{number}"), role="annotator")
        publish_guideline(project=project, markdown=f"version {number}", created_by=lead)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    assert queries() <= few


def test_the_strip_counts_the_loop_and_links_its_stations(client, filled_project, lead, annotator):
    factories.judge_all(filled_project, annotator, limit=2)
    client.force_login(lead)
    page = client.get(address(filled_project)).content.decode()
    strip = page[page.index('id="loop-strip"') : page.index("</nav>", page.index('id="loop-strip"'))]
    for name, value in (
        ("prompts", "5"),
        ("completions", "15"),
        ("tasks", "2/5"),
        ("judgements", "2"),
        ("snapshot", "none"),
    ):
        assert f'<span class="loop-name">{name}</span> <span class="loop-value">{value}</span>' in strip
    assert strip.count("<a href=") == 7


def test_an_empty_project_asks_for_prompts_first(client, project, lead):
    client.force_login(lead)
    page = client.get(address(project))
    assert [line.action for line in page.context["advice"]] == ["Import some"]


def test_enough_judgements_ask_for_a_snapshot(client, filled_project, lead, annotator):
    factories.judge_all(filled_project, annotator)
    client.force_login(lead)
    advice = client.get(address(filled_project)).context["advice"]
    assert [line.action for line in advice] == ["Freeze a snapshot"]
    assert advice[0].text == "5 judgements and nothing frozen yet."


def test_advice_for_another_role_has_no_button(client, filled_project, reviewer, annotator):
    factories.judge_all(filled_project, annotator)
    client.force_login(reviewer)
    page = client.get(address(filled_project)).content.decode()
    assert "Freeze a snapshot" not in page
    assert "for a " in page


def test_simulated_annotators_are_marked_on_the_front_page_and_among_people(client, project, lead):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    add_member(project=project, user=robot, role="annotator")
    factories.fill_project(project, 2)
    factories.judge_all(project, robot)
    client.force_login(lead)
    assert b'<span class="badge badge-warn">simulated</span>' in client.get(address(project)).content
    assert b'robot <span class="badge badge-warn">simulated</span>' in client.get(address(project, "people/")).content


# --- forms --------------------------------------------------------------------------------------
BENCH = {
    "system_prompts": "hidden",
    "fold_turns": "4",
    "daily_cap": "80",
    "break_minutes": "0",
    "content_warning": "Grim.\r\nVery.",
    "blur": "on",
}
SETTINGS = BENCH | {
    "name": "New name", "description": "", "ranking": "on", "ties": "on", "rationale": "off", "demonstration": "off",
    "asks_flags": "on", "flags": ["unsafe", "", " off topic "], "asks_ratings": "on", "axis": ["7", "0"],
    "axis.7.name": "helpfulness", "axis.7.low": "1", "axis.7.high": "5", "axis.7.help": "Does it help?",
    "axis.7.word.1": "useless", "axis.7.word.2": "", "axis.0.name": "tone", "axis.0.low": "-1", "axis.0.high": "1",
    "required": ["ratings", "acceptable", "strength"], "overlap": "3", "lease_minutes": "5", "eval_per_cent": "10",
}  # fmt: skip


def test_settings_are_saved_and_the_switches_not_sent_are_off(client, project, lead):
    client.force_login(lead)
    assert client.post(address(project, "settings/"), SETTINGS).status_code == 302
    project.refresh_from_db()
    assert (project.name, project.overlap, project.lease_seconds, project.eval_share) == ("New name", 3, 300, 0.1)
    assert project.form["flags"] == ["unsafe", "off topic"]
    assert list(project.form["ratings"].items()) == [
        ("helpfulness", {"low": 1, "high": 5, "labels": {"1": "useless"}, "help": "Does it help?"}),
        ("tone", {"low": -1, "high": 1}),
    ]
    assert project.form["required"] == ["ratings"]  # the others aren't asked for
    assert project.form["none_acceptable"] is False
    assert project.form["marks"] == []
    assert project.bench == {
        "system_prompts": "hidden", "fold_turns": 4, "content_warning": "Grim.\nVery.", "blur": True, "daily_cap": 80,
        "break_minutes": 0, "warns_when_fast": False, "shows_agreement": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"name": ""}, "name", "required"),
        ({"overlap": "0"}, "overlap", "greater than"),
        ({"axis.7.low": "high"}, "ratings", "whole number"),
        ({"axis.7.low": "5"}, "ratings", "5 is not below 5"),
        ({"axis.7.high": "500"}, "ratings", "500 steps"),
        ({"axis.7.word.9": "off it"}, "ratings", "9 has a word and is no step"),
        ({"axis.7.name": ""}, "ratings", "Give this axis a name"),
        ({"axis.0.name": "helpfulness"}, "ratings", "an axis “helpfulness” already"),
        ({"axis.7.help": "a\x00b"}, "ratings", "NUL"),
        ({"axis": []}, "ratings", "Name at least one axis"),
        ({"flags": ["a", "a"]}, "flags", "“a” is there already"),
        ({"asks_marks": "on", "marks": ["x" * 41]}, "marks", "at most 40"),
        ({"asks_marks": "on"}, "marks", "switch this part off"),
        ({"ranking": [], "asks_ratings": [], "asks_flags": []}, "ranking", "asks for nothing"),
        ({"break_minutes": "601"}, "break_minutes", "less than or equal to 600"),
        ({"content_warning": "x" * 4001}, "content_warning", "4000"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_beside_its_field(client, project, lead, changes, field, said):
    client.force_login(lead)
    answer = client.post(address(project, "settings/"), SETTINGS | changes)
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert said in answer.content.decode()
    project.refresh_from_db()
    assert project.name == "Support replies"


def test_what_was_typed_is_still_there_beside_what_is_wrong(client, project, lead):
    client.force_login(lead)
    typed = {"axis.7.high": "x", "asks_marks": [], "marks": ["rude", "false"]}
    page = client.post(address(project, "settings/"), SETTINGS | typed).content.decode()
    for kept in (
        'value="helpfulness"',
        'value="x"',
        'value="Does it help?"',
        'value="useless"',
        'value="rude"',
        'value="tone"',
    ):
        assert kept in page, kept
    assert 'aria-describedby="axis-problem-7"' in page
    assert 'id="axis-problem-7"' in page
    assert "axis-problem-0" not in page


@pytest.mark.parametrize("preset", [*PRESETS, TALK], ids=lambda preset: preset.key)
def test_a_preset_fills_the_form_in_without_a_script(client, project, lead, preset):
    """Choose a card and press its button, then save what comes back: the form is the preset's."""
    client.force_login(lead)
    sent = BENCH | {"name": "New name", "overlap": "1", "lease_minutes": "5", "eval_per_cent": "10"}
    filled = client.post(address(project, "settings/"), sent | {"do": "preset", "preset": preset.key})
    assert filled.status_code == 200
    assert "errorlist" not in filled.content.decode()
    project.refresh_from_db()
    assert project.name == "Support replies"
    assert client.post(address(project, "settings/"), fields_of(filled.content.decode())).status_code == 302
    project.refresh_from_db()
    assert project.form == preset.form
    assert complete_form(preset.form) == (preset.form, {})


def test_rows_are_added_moved_and_taken_out_without_a_script(client, project, lead):
    client.force_login(lead)

    def press(button: str, sent: dict) -> dict:
        answer = client.post(address(project, "settings/"), sent | {"do": button})
        assert answer.status_code == 200
        return fields_of(answer.content.decode())

    sent = press("flags.up.2", SETTINGS)
    assert sent["flags"] == ["unsafe", "off topic", ""]
    sent = press("flags.drop.0", sent)
    assert sent["flags"] == ["off topic", ""]
    sent = press("ratings.down.0", sent)
    assert sent["axis"] == ["0", "7"]
    sent = press("ratings.add", sent)
    assert sent["axis"] == ["0", "7", "8"]
    assert (sent["axis.7.help"], sent["axis.8.low"], sent["axis.8.high"]) == (["Does it help?"], ["1"], ["5"])
    assert press("ratings.drop.99", sent)["axis"] == ["0", "7", "8"]
    assert press("nonsense", sent) == sent


def test_a_preset_keeps_the_rows_that_were_typed(client, project, lead):
    client.force_login(lead)
    answer = client.post(address(project, "settings/"), SETTINGS | {"do": "preset", "preset": "good"})
    sent = fields_of(answer.content.decode())
    assert "asks_ratings" not in sent
    assert sent["axis.7.name"] == ["helpfulness"]
    answer = client.post(address(project, "settings/"), sent | {"do": "preset", "preset": "everything"})
    sent = fields_of(answer.content.decode())
    assert sent["asks_ratings"] == ["on"]
    assert [sent[f"axis.{token}.name"] for token in sent["axis"]] == [["helpfulness"], ["tone"]]
    assert sent["marks"] == ["wrong fact", "unsafe", "rude", "off-topic"]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_a_saved_form_shows_its_preset_chosen(client, project, lead, preset):
    change_project(project=project, form=preset.form)
    client.force_login(lead)
    sent = fields_of(client.get(address(project, "settings/")).content.decode())
    assert sent["preset"] == [preset.key]


class Fields(HTMLParser):
    """What a browser without scripts would send of the builder's form."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.state = ""  # "", "form", "template", "name of a text area", "select"
        self.name = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        at = dict(attributes)
        if tag == "form":
            self.state = "form" if "data-builder" in at else ""
        elif self.state == "form" and tag == "template":
            self.state = "template"
        elif self.state == "form" and tag == "textarea":
            self.state, self.name = "textarea", at["name"] or ""
            self.found.setdefault(self.name, []).append("")
        elif self.state == "form" and tag == "input" and at.get("name"):
            kind = at.get("type", "text")
            if kind not in ("checkbox", "radio") or "checked" in at:
                self.found.setdefault(at["name"] or "", []).append(at.get("value", "on" if kind in ("checkbox", "radio") else "") or "")

    def handle_data(self, data: str) -> None:
        if self.state == "textarea":
            self.found[self.name][-1] += data.removeprefix("\n")  # a browser drops the first line break

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.state = ""
        elif tag == self.state:
            self.state = "form"


def fields_of(page: str) -> dict[str, list[str]]:
    reader = Fields()
    reader.feed(page)
    return {name: values for name, values in reader.found.items() if name != "csrfmiddlewaretoken"}


def test_only_a_lead_changes_settings_and_pauses(client, project, engineer):
    client.force_login(engineer)
    assert client.post(address(project, "settings/"), SETTINGS).status_code == 403
    assert client.post(address(project, "state/"), {"state": "paused"}).status_code == 403
    project.refresh_from_db()
    assert project.state == "open"


def test_a_lead_pauses_and_resumes(client, project, lead):
    client.force_login(lead)
    client.post(address(project, "state/"), {"state": "paused"})
    assert Project.objects.get().state == "paused"
    client.post(address(project, "state/"), {"state": "open"})
    assert Project.objects.get().state == "open"


def test_a_person_makes_a_project_and_leads_it(client, stranger):
    client.force_login(stranger)
    sent = SETTINGS | {"name": "Tone of voice", "slug": "", "guideline": "Be kind."}
    answer = client.post("/projects/new/", sent)
    assert answer.url == "/projects/tone-of-voice/"
    assert client.get(answer.url).status_code == 200


def test_a_project_for_conversations_goes_on_to_the_page_that_sets_them_up(client, stranger):
    client.force_login(stranger)
    answer = client.post("/projects/new/", SETTINGS | {"name": "Talk", "slug": "talk", "preset": "talk"})
    assert answer.url == "/projects/talk/conversation/"
    assert client.get(answer.url).status_code == 200
    assert answer.url in client.get("/projects/talk/settings/").content.decode()


def test_a_new_project_says_what_comes_next_until_something_is_judged(client, project, lead, annotator):
    client.force_login(lead)

    def steps() -> list[tuple[str, bool, bool]]:
        found = client.get(address(project)).context["first_steps"]
        return [(step.text.split()[0], step.is_done, step.is_next) for step in found]

    assert steps() == [("Import", False, True), ("Make", False, False), ("Add", True, False), ("Open", False, False)]
    factories.fill_project(project, 1)
    assert steps() == [("Import", True, False), ("Make", True, False), ("Add", True, False), ("Open", False, True)]
    factories.judge_all(project, annotator)
    assert steps() == []


@pytest.mark.parametrize("slug", ["new", "has spaces", "support"])
def test_a_short_name_that_cannot_be_is_refused_at_its_field(client, project, lead, slug):
    client.force_login(lead)
    answer = client.post("/projects/new/", SETTINGS | {"slug": slug})
    assert answer.status_code == 422
    assert "slug" in answer.context["form"].errors


def test_a_lead_adds_changes_and_removes_people(client, project, lead, stranger):
    client.force_login(lead)
    client.post(address(project, "people/"), {"username": "stranger", "role": "annotator"})
    assert project.memberships.get(user=stranger).role == "annotator"
    client.post(address(project, "people/"), {"username": "stranger", "role": "reviewer"})
    assert project.memberships.get(user=stranger).role == "reviewer"
    client.post(address(project, f"people/{stranger.pk}/remove/"))
    assert not project.memberships.filter(user=stranger).exists()


def test_an_unknown_name_and_the_last_lead_are_refused(client, project, lead):
    client.force_login(lead)
    answer = client.post(address(project, "people/"), {"username": "nobody", "role": "annotator"})
    assert "no account of this name" in answer.content.decode()
    answer = client.post(address(project, "people/"), {"username": "lead", "role": "annotator"})
    assert "make someone else lead first" in answer.content.decode()
    client.post(address(project, f"people/{lead.pk}/remove/"))
    assert project.memberships.filter(user=lead).exists()


def test_a_new_guideline_is_a_new_version_that_shows_what_changed(client, project, lead):
    client.force_login(lead)
    answer = client.post(address(project, "guidelines/"), {"markdown": "Prefer *short* and kind."})
    assert answer.status_code == 422  # word for word what there is
    client.post(address(project, "guidelines/"), {"markdown": "Prefer *short*.\r\nName the next step."})
    page = client.get(address(project, "guidelines/")).content.decode()
    assert '<span class="diff-removed">− Prefer *short* and kind.' in page
    assert '<span class="diff-added">+ Name the next step.' in page


def test_the_preview_runs_no_html(client, project, lead):
    client.force_login(lead)
    answer = client.post(address(project, "guidelines/preview/"), {"markdown": "**bold** <script>alert(1)</script>"})
    assert "<strong>bold</strong>" in answer.content.decode()
    assert "<script" not in answer.content.decode()


def test_a_lead_makes_tasks_for_prompts_that_have_none(client, project, lead):
    factories.import_rows(project=project, format="completions", lines=factories.completions_rows(4), created_by=lead)
    client.force_login(lead)
    answer = client.post(
        address(project, "tasks/"), {"completions_per_task": 3, "overlap": 2, "which": "new"}, follow=True
    )
    assert "4 new tasks, 8 judgements wanted." in answer.content.decode()
    assert project.tasks.count() == 4
    answer = client.post(address(project, "tasks/"), {"completions_per_task": 1, "overlap": 2, "which": "new"})
    assert answer.status_code == 422
    assert "completions_per_task" in answer.context["form"].errors


@pytest.mark.parametrize(
    ("form", "completions_per_task", "which", "n_tasks", "n_left_out"),
    [
        ({}, 2, "new", 4, 2),
        ({}, 9, "new", 4, 2),
        ({"ranking": False, "acceptable": True}, 1, "new", 13, 1),
        ({"ranking": False, "acceptable": True}, 3, "new", 4, 2),
        ({"ranking": False, "demonstration": "required"}, 0, "new", 6, 0),
        ({"ranking": False, "demonstration": "required"}, 2, "new", 4, 2),
        ({}, 3, "all", 4, 2),
    ],
)  # fmt: skip
def test_the_plan_counts_what_is_made(client, project, lead, form, completions_per_task, which, n_tasks, n_left_out):
    """Four prompts of three completions, one of a single one, one of none; equal texts of two models are one choice."""
    change_project(project=project, form=form)
    rows = [*factories.completions_rows(4), factories.completions_rows(1, 1, start=4)[0]]
    factories.import_rows(project=project, format="completions", lines=rows, created_by=lead)
    again = factories.completions_rows(5, 1, model="other@1")
    factories.import_rows(project=project, format="completions", lines=again, created_by=lead)
    factories.import_rows(project=project, format="prompts", lines=[b'{"prompt": "bare"}'], created_by=lead)
    client.force_login(lead)
    wanted = {"completions_per_task": completions_per_task, "overlap": 3, "which": which}
    plan = client.get(address(project, "tasks/"), wanted).context["plan"]
    assert (plan.n_tasks, plan.n_judgements, plan.n_bare) == (n_tasks, 3 * n_tasks, n_left_out)
    assert not project.tasks.exists()
    assert client.post(address(project, "tasks/"), wanted).status_code == 302
    assert project.tasks.count() == n_tasks


def test_the_tasks_page_offers_what_the_form_can_ask_of(client, project, lead):
    client.force_login(lead)
    for form, first, usual in (({}, 2, 4), ({"strength": True}, 2, 2), ({"ranking": False, "marks": ["rude"]}, 1, 1),
                               ({"ranking": False, "demonstration": "optional"}, 0, 0)):  # fmt: skip
        change_project(project=project, form=form)
        field = client.get(address(project, "tasks/")).context["form"]["completions_per_task"]
        assert (field.field.choices[0][0], field.value()) == (first, usual)
    assert client.get(address(project, "tasks/?completions_per_task=77&overlap=x")).status_code == 200


# --- prompts ------------------------------------------------------------------------------------
def test_prompts_page_by_keyset_and_are_found_by_tag_and_id(client, project, lead):
    factories.import_rows(project=project, format="completions", lines=factories.completions_rows(60), created_by=lead)
    client.force_login(lead)
    first = client.get(address(project, "prompts/")).context["page"]
    second = client.get(address(project, "prompts/") + "?" + first["older"]).context["page"]
    assert len(first["rows"]) + len(second["rows"]) == 60
    assert second["rows"][0].pk < first["rows"][-1].pk
    assert len(client.get(address(project, "prompts/?q=p59")).context["page"]["rows"]) == 1
    assert len(client.get(address(project, "prompts/?q=delivery")).context["page"]["rows"]) == 50
    assert client.get(address(project, "prompts/?q=no such tag")).context["page"]["rows"] == []
    assert client.get(address(project, "prompts/?before=99999999999999999999")).status_code == 200


def test_a_prompt_shows_who_wrote_its_completions_and_how_they_were_ranked(client, filled_project, lead, annotator):
    factories.judge_all(filled_project, annotator, limit=1)
    task = filled_project.judgements.get().task
    client.force_login(lead)
    page = client.get(address(filled_project, f"prompts/{task.prompt_id}/")).content.decode()
    assert "tiny@1" in page
    assert "1 &gt; 2 &gt; 3" in page


def test_a_prompt_of_another_project_is_not_found(client, filled_project, lead):
    other = factories.make_project(factories.make_user("other-lead"), slug="other")
    factories.fill_project(other, 1)
    client.force_login(lead)
    assert client.get(address(filled_project, f"prompts/{other.prompts.get().pk}/")).status_code == 404
