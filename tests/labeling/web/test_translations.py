"""The pages of annotators in another language: complete catalogues, and who gets which language."""

import ast
import gettext
import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.urls import reverse
from django.utils import translation
from django.utils.formats import date_format
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.services import save_draft, skip_lease, submit_judgement, take_lease
from labeling.web.management.commands.messages import IGNORED, MARKS
from tests import factories
from tests.api_caller import Caller

ROOT = Path(settings.BASE_DIR)
CATALOGUES = sorted(Path(settings.LOCALE_PATHS[0]).glob("*/LC_MESSAGES/*.po"))
LANGUAGES = [code for code, _ in settings.LANGUAGES if code != "en"]
SOURCES = ("config", "labeling", "templates", "training")
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd%]|</?[a-z]+[^>]*>")
GERMAN = {"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}

Catalogue = dict[str | tuple[str, int], str]


# --- the catalogues -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> dict[str, Path]:
    """What `make messages` makes of the sources now: the catalogues in a copy, by `de/LC_MESSAGES/django.po`."""
    if not shutil.which("xgettext"):
        message = "no GNU gettext here: install it (Debian: apt-get install gettext)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.pyc", "*.png", "*.html.py"))
    folder = copy / "labeling" / "web" / "locale"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        patch.setattr(settings, "LOCALE_PATHS", [folder])
        call_command("messages", verbosity=0)
    return {str(path.relative_to(folder)): path for path in folder.glob("*/LC_MESSAGES/*.po")}


def compiled(path: Path) -> Catalogue:
    with path.open("rb") as file:
        return {key: text for key, text in gettext.GNUTranslations(file)._catalog.items() if key != ""}


def name_of(path: Path) -> str:
    return str(path.relative_to(settings.LOCALE_PATHS[0]))


def texts_in(path: Path) -> list[str]:
    """Every text of a catalogue file, translated or not."""
    made = subprocess.run(["msgen", path], check=True, capture_output=True).stdout
    binary = path.with_suffix(".all")
    subprocess.run(["msgfmt", "-o", binary, "-"], check=True, input=made)
    return [
        key[0] if isinstance(key, tuple) else key
        for key in compiled(binary)
        if not isinstance(key, tuple) or not key[1]
    ]


def test_there_are_catalogues_of_every_language_offered():
    assert [name_of(path) for path in CATALOGUES] == [
        f"{code}/LC_MESSAGES/{domain}.po" for code in sorted(LANGUAGES) for domain in ("django", "djangojs")
    ]


@pytest.mark.parametrize("path", CATALOGUES, ids=name_of)
def test_every_text_of_the_pages_is_translated(collected, path):
    fresh = collected[name_of(path)]
    translated = compiled(path.with_suffix(".mo"))
    missing = [text for text in texts_in(fresh) if text not in translated and (text, 0) not in translated]
    assert missing == [], f"run `make messages` and translate these in {path}"


@pytest.mark.parametrize("path", CATALOGUES, ids=name_of)
def test_the_catalogue_is_what_make_messages_writes(collected, path):
    assert path.read_text(encoding="utf-8") == collected[name_of(path)].read_text(encoding="utf-8"), (
        "run `make messages`"
    )


@pytest.mark.parametrize("path", CATALOGUES, ids=name_of)
def test_the_compiled_catalogue_is_that_of_its_text(collected, path, tmp_path):
    subprocess.run(["msgfmt", "--check-format", "-o", tmp_path / "fresh.mo", path], check=True)
    assert compiled(path.with_suffix(".mo")) == compiled(tmp_path / "fresh.mo"), "run `make messages`"


@pytest.mark.parametrize("path", CATALOGUES, ids=name_of)
def test_no_guess_stands_in_for_a_translation(path):
    assert "#, fuzzy" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CATALOGUES, ids=name_of)
def test_placeholders_and_tags_survive_translation(path):
    wrong = []
    for key, text in compiled(path.with_suffix(".mo")).items():
        source = key[0] if isinstance(key, tuple) else key
        if sorted(PLACEHOLDER.findall(source)) != sorted(PLACEHOLDER.findall(text)):
            wrong.append((source, text))
    assert wrong == []


@pytest.mark.parametrize("path", CATALOGUES, ids=name_of)
def test_translations_begin_and_end_as_their_texts_do(path):
    """White space around a text joins it to the next; a colon or full stop belongs to the page's shape."""
    wrong = []
    for key, text in compiled(path.with_suffix(".mo")).items():
        source = (key[0] if isinstance(key, tuple) else key).split("\x04")[-1]
        same_space = (source[:1].isspace(), source[-1:].isspace()) == (text[:1].isspace(), text[-1:].isspace())
        if not same_space or any((source[-1] == sign) != (text[-1] == sign) for sign in ".:?…"):
            wrong.append((source, text))
    assert wrong == []


def test_what_python_marks_is_all_collected(collected):
    """xgettext reads Python in its own way, which is not quite Python's."""
    known = set(texts_in(collected["de/LC_MESSAGES/django.po"]))
    missing = []
    for path in sorted(path for name in SOURCES for path in (ROOT / name).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in MARKS and call.args:
                text = call.args[0]
                if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value not in known:
                    missing.append((path.name, text.value))
    assert missing == []


def test_what_scripts_mark_is_all_collected(collected):
    known = set(texts_in(collected["de/LC_MESSAGES/djangojs.po"]))
    missing = []
    for path in sorted(path for name in SOURCES for path in (ROOT / name).rglob("*.js")):
        if path.name == "i18n.js":
            continue
        source = path.read_text(encoding="utf-8")
        marked = re.findall(r'\b(?:_|gettext|ngettext|later)\(\s*("(?:[^"\\]|\\.)*")', source)
        missing += [(path.name, text) for text in map(json.loads, marked) if text not in known]
        assert not re.search(r"\b(?:_|ngettext)\(\s*['`]", source), f"{path.name}: mark texts in double quotes"
    assert missing == []


def test_collecting_skips_tests_and_data():
    assert {"tests", "var"} <= set(IGNORED)


# --- who gets which language --------------------------------------------------------------------
def language_of(response) -> str:
    return re.search(r'<html lang="([^"]*)"', response.content.decode())[1]


def text_of(response) -> str:
    return unescape(response.content.decode())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("de", "de"),
        ("de-CH", "de"),
        ("fr,de;q=0.5", "de"),
        ("fr", "en"),
        ("fr-FR,fr;q=0.9", "en"),
        ("en-GB,de;q=0.8", "en"),
        ("*", "en"),
        ("", "en"),
        ("de;q=what", "en"),
        ("x" * 5000, "en"),
        ("../../etc/passwd", "en"),
    ],
)
def test_a_browser_asks_for_a_language(client, db, header, expected):
    page = client.get(reverse("accounts:login"), headers={"Accept-Language": header})
    assert (page.status_code, language_of(page)) == (200, expected)
    assert ("Anmelden" in text_of(page)) == (expected == "de")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "xx",
        "fr",
        "DE'\"><script>",
        "../../../etc/passwd",
        "de/../en",
        "en\x00",
        "a" * 4000,
        "de-" * 900,
        "%s%s%n",
    ],
)
def test_a_hostile_language_cookie_is_ignored(client, db, value):
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = value
    page = client.get(reverse("accounts:login"))
    assert page.status_code == 200
    assert language_of(page) in ("en", "de")
    assert "<script>" not in text_of(page).split("</head>")[1]


@pytest.mark.parametrize("wanted", ["xx", "fr", "", "../de", "de\n", "a" * 5000, "<script>"])
def test_only_offered_languages_are_taken(client, annotator, wanted):
    client.force_login(annotator)
    assert client.post(reverse("accounts:language"), {"language": wanted}).status_code == 302
    assert settings.LANGUAGE_COOKIE_NAME not in client.cookies
    assert User.objects.get(pk=annotator.pk).language == ""


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "\\\\evil.example", ""]
)
def test_choosing_a_language_leads_to_no_other_site(client, annotator, back):
    client.force_login(annotator)
    answer = client.post(reverse("accounts:language"), {"language": "de", "next": back})
    assert answer.url == reverse("home")


def test_the_choice_is_kept_with_the_account_and_follows_the_person(client, annotator, django_user_model):
    client.force_login(annotator)
    profile = reverse("accounts:profile")
    assert language_of(client.get(profile)) == "en"
    answer = client.post(reverse("accounts:language"), {"language": "de", "next": profile})
    assert answer.url == profile and language_of(client.get(profile)) == "de"
    client.logout()
    client.cookies.clear()
    assert language_of(client.get(reverse("accounts:login"))) == "en"
    client.force_login(annotator)
    assert language_of(client.get(profile, headers={"Accept-Language": "en"})) == "de"


def test_the_choice_before_the_log_in_lasts_through_it(client, annotator):
    login = reverse("accounts:login")
    client.post(reverse("accounts:language"), {"language": "de", "next": login})
    assert language_of(client.get(login)) == "de"
    client.post(login, {"username": "annotator", "password": factories.PASSWORD})
    assert language_of(client.get(reverse("accounts:profile"))) == "de"


def test_a_language_that_is_no_longer_offered_falls_back_to_english(client, annotator):
    User.objects.filter(pk=annotator.pk).update(language="xx")
    client.force_login(annotator)
    page = client.get(reverse("accounts:profile"))
    assert (page.status_code, language_of(page)) == (200, "en")


def test_pages_of_annotators_are_german(client, annotator, filled_project):
    client.force_login(annotator)
    lease = take_lease(project=filled_project, annotator=annotator)
    bench = reverse("annotation:bench", args=["support"])
    expected = {
        bench: ["Auslassen", "Abgeben", "Richtlinie", "Noch nicht eingeordnet"],
        reverse("annotation:history", args=["support"]): ["Was Sie beurteilt haben", "Noch nichts"],
        reverse("accounts:profile"): ["Rolle", "Annotation", "Token anlegen", "Gültig für", "eine Woche"],
        "/no-such-page": ["Nicht gefunden"],
    }
    for path, words in expected.items():
        page = client.get(path, headers=GERMAN)
        assert language_of(page) == "de", path
        assert [word for word in words if word not in text_of(page)] == [], path
    submit_judgement(lease=lease, submission_key="key-" + "1" * 20, body={"ranking": [["a"], ["b"], ["c"]]})
    history = text_of(client.get(reverse("annotation:history", args=["support"]), headers=GERMAN))
    with translation.override("de"):
        assert date_format(now(), "j. M") in history


def test_home_counts_in_german(client, lead, filled_project):
    client.force_login(lead)
    page = text_of(client.get("/", headers=GERMAN))
    assert '<span class="number">5</span> Aufgaben warten auf Sie' in page and "Leitung" in page
    filled_project.tasks.exclude(pk=filled_project.tasks.first().pk).delete()
    assert '<span class="number">1</span> Aufgabe wartet auf Sie' in text_of(client.get("/", headers=GERMAN))


def test_what_a_service_refuses_is_said_in_german(client, annotator, filled_project):
    lease = take_lease(project=filled_project, annotator=annotator)
    skip_lease(lease=lease)
    client.force_login(annotator)
    address = reverse("annotation:renew", args=["support", lease.pk])
    assert client.post(address, headers=GERMAN).json()["message"].startswith("Diese Aufgabe ging zurück")


def test_a_draft_comes_back_whole_in_german(client, annotator, filled_project):
    """A decimal comma in a field that scripts read would lose the number."""
    lease = take_lease(project=filled_project, annotator=annotator)
    save_draft(lease=lease, draft={"ranking": [["a"]], "seconds": 12.5})
    client.force_login(annotator)
    page = text_of(client.get(reverse("annotation:bench", args=["support"]), headers=GERMAN))
    assert '<input type="hidden" name="seconds" value="12.5">' in page


# --- what stays English -------------------------------------------------------------------------
def test_the_api_answers_in_english_whatever_is_asked_for(annotator, lead, filled_project):
    User.objects.update(language="de")
    for caller in (Caller(annotator), Caller(lead), Caller()):
        for call in (
            lambda caller: caller.get("projects/none/", **GERMAN),
            lambda caller: caller.get("no-such-address/", **GERMAN),
            lambda caller: caller.post("projects/", {"slug": "Not a slug", "extra": 1}, **GERMAN),
            lambda caller: caller.post("projects/", b"{", **GERMAN),
            lambda caller: caller.post("projects/support/tasks/", {"prompt_ids": "x"}, **GERMAN),
            lambda caller: caller.call("DELETE", "projects/", **GERMAN),
        ):
            german = call(caller)
            assert german.status_code >= 400 and german["Content-Language"] == "en"
            assert not re.search(r"[äöüß]|\b(nicht|ist|Sie|wurde|Eingabe)\b", german.content.decode()), german.content
    lease = take_lease(project=filled_project, annotator=annotator)
    skip_lease(lease=lease)
    refused = Caller(annotator).post(
        f"leases/{lease.pk}/submit/", {"submission_key": "x" * 20, "ranking": [["a"]]}, **GERMAN
    )
    assert refused.status_code >= 400 and refused["Content-Language"] == "en"


@pytest.mark.parametrize("path", ["/admin/", "/docs/", "/docs/annotating/", "/projects/support/", "/projects/new/"])
def test_pages_that_are_not_translated_are_english_throughout(client, lead, project, path):
    User.objects.filter(pk=lead.pk).update(language="de", is_staff=True, is_superuser=True)
    client.force_login(lead)
    page = client.get(path, headers=GERMAN)
    assert page.status_code == 200
    assert language_of(page)[:2] == "en"
    assert not re.search(r"\b(Abmelden|Projekte|Verwaltung|Hinzufügen)\b", text_of(page))


def test_the_catalogue_of_the_scripts_is_served_by_language(client, db):
    german = client.get(reverse("catalogue", args=["de"]))
    assert german.status_code == 200 and german["Content-Type"].startswith("text/javascript")
    assert "N\\u00e4chste Aufgabe" in german.content.decode() or "Nächste Aufgabe" in german.content.decode()
    for unknown in ("fr", "de.js", "..", "xx"):
        assert client.get(f"/language/{unknown}.js").status_code == 404
