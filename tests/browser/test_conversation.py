"""Live conversations in a real Chromium: by keyboard alone, and through everything that breaks on the way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from labeling.accounts.models import User
from labeling.accounts.roles import Role
from labeling.annotation.models import Judgement, Task
from labeling.conversation.models import Conversation, Turn
from labeling.conversation.services import change_settings
from labeling.projects.models import Project
from labeling.projects.services import change_project
from tests import factories
from tests.browser.axe import LOOKS, serious
from tests.browser.conftest import ROOT, Site
from tests.factories import token_for
from tests.labeling.conversation.conftest import SERVER_NAME, TELLING, TOLD, speakers
from tests.labeling.conversation.model_server import ScriptedServer, cut_after, echo, gated, say
from tests.ports import free_port

LIST = "/projects/support/bench/conversations/"
BENCH = "/projects/support/bench/"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@dataclass
class Talking:
    """The site with its `live` process and a scripted model server behind it."""

    address: str
    home: object
    models: ScriptedServer
    environment: dict[str, str]
    live_port: int
    live: subprocess.Popen | None = None
    processes: list[subprocess.Popen] = field(default_factory=list)

    def url(self, path: str) -> str:
        return self.address + path

    def start_live(self) -> None:
        self.live = self._start("asgi", self.live_port, "config.asgi:application")
        _wait_for(f"http://127.0.0.1:{self.live_port}/healthz")

    def kill_live(self) -> None:
        os.killpg(self.live.pid, signal.SIGKILL)
        self.live.wait(10)

    def _start(self, interface: str, port: int, application: str) -> subprocess.Popen:
        log = (self.home / f"talk-{interface}.log").open("ab")
        process = subprocess.Popen(
            [
                sys.executable, "-m", "granian", "--interface", interface, "--host", "127.0.0.1", "--port", str(port),
                "--workers", "1", *(("--blocking-threads", "4") if interface == "wsgi" else ()), application,
            ],
            env=self.environment, cwd=self.home, stdout=log, stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip
        self.processes.append(process)
        return process


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def running(server: Site) -> Iterator[Talking]:
    """A second web process of the same site, which knows of `live` and of the model server."""
    models = ScriptedServer()
    web_port, live_port = free_port(), free_port()
    named = json.dumps({SERVER_NAME: {"url": models.url}})
    environment = {
        **os.environ, "PREFLOOP_HOME": str(server.home), "PYTHONPATH": str(ROOT), "PREFLOOP_LIVE_PORT": str(live_port),
        "PREFLOOP_MODEL_SERVERS": named, "PREFLOOP_MODEL_FIRST_TOKEN_SECONDS": "8",
        "PREFLOOP_MODEL_NEXT_TOKEN_SECONDS": "8",
    }  # fmt: skip
    from django.conf import settings

    environment["PREFLOOP_SECRET_KEY"] = settings.SECRET_KEY
    environment.pop("PREFLOOP_DATABASE_URL", None)
    talking = Talking(f"http://127.0.0.1:{web_port}", server.home, models, environment, live_port)
    try:
        talking._start("wsgi", web_port, "config.wsgi:application")
        talking.start_live()
        _wait_for(talking.url("/healthz"))
        yield talking
    finally:
        for process in talking.processes:
            if process.poll() is None:
                process.terminate()
                process.wait(20)
        models.stop()


@pytest.fixture
def talk(running: Talking, site, settings, monkeypatch) -> Talking:
    """Every test has both models answer at once unless it says otherwise; pages come from the second process."""
    monkeypatch.setattr(site, "address", running.address)
    settings.MODEL_SERVERS = {SERVER_NAME: {"url": running.models.url, "key": ""}}
    running.models.scripts.clear()
    running.models.script("model-one", echo("Uno")).script("model-two", echo("Due"))
    if running.live.poll() is not None:
        running.start_live()
    return running


@pytest.fixture
def annotator(talk) -> User:
    return factories.make_user("annotator")


@pytest.fixture
def lead(talk) -> User:
    return factories.make_user("lead")


@pytest.fixture
def project(lead, annotator) -> Project:
    return factories.make_project(lead, members={annotator: Role.ANNOTATOR})


@pytest.fixture
def talking(project, monkeypatch) -> Project:
    monkeypatch.setattr("labeling.conversation.speakers.MAX_TOKENS", TELLING["max_tokens"])
    change_settings(
        project=project, is_on=True, speakers=speakers("model-one", "model-two", **TELLING), max_turns=5,
        note="Talk about *parcels*.",
    )  # fmt: skip
    return project


def begin(open_page, annotator, **options):
    page = open_page(annotator, BENCH, **options)
    page.get_by_role("button", name="Begin a conversation").click()
    page.wait_for_selector("[data-talk]")
    return page


def until(page, condition: str, seconds: float = 60) -> None:
    """The strict policy on scripts forbids Playwright's own way of waiting for an expression."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def speak(page, text: str) -> None:
    page.wait_for_selector("[data-content]:not([disabled])")
    until(page, "document.activeElement.matches('[data-content]')")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def call(talk: Talking, user: User, path: str, body: object = None):
    """The REST API as a program calls it; JSON, or the rows of a JSON lines file."""
    headers = {"Authorization": f"Bearer {token_for(user)}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(talk.url(f"/api/v1/{path}"), data, headers)) as answer:
        content = answer.read()
    return [json.loads(line) for line in content.splitlines()] if ".jsonl" in path else json.loads(content)


def wait_ready(page) -> None:
    page.wait_for_selector("[data-judging] [data-task]")


def texts_of(page) -> list[str]:
    return page.locator("[data-judging] [data-card-text]").all_inner_texts()


def test_three_turns_by_keyboard_alone_are_read_back_as_judgements_and_votes(talking, annotator, lead, open_page, talk):
    page = open_page(annotator, BENCH)
    page.keyboard.press("Enter")  # the button that begins has the focus
    page.wait_for_selector("[data-talk]")
    chosen = []
    for number, key in enumerate(("1", "3", "1")):
        speak(page, f"Question {number}")
        wait_ready(page)
        assert page.evaluate("document.querySelector('[data-announce]').textContent").startswith(
            "Both completions are there"
        )
        shown = texts_of(page)
        chosen.append(shown[0 if key == "1" else 1])
        page.keyboard.press(key)
        until(page, f"document.querySelectorAll('.said-assistant').length === {number + 1}")
        assert page.locator(".said-assistant").last.inner_text().endswith(chosen[-1])
        until(page, "document.activeElement.matches('[data-content]')")
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+E")
    page.keyboard.type("said all")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{LIST}")
    assert "said all" in page.content()

    conversation = Conversation.objects.get()
    assert (conversation.state, conversation.ending) == ("ended", "said all")
    rows = call(talk, annotator, "projects/support/judgements/")["results"][::-1]
    assert [row["judgement"]["ranking"] for row in rows] == [[["a"], ["b"]], [["b"], ["a"]], [["a"], ["b"]]]
    assert all(row["judgement"]["seconds"] >= 0 for row in rows)
    snapshot = call(talk, lead, "projects/support/snapshots/", {})["id"]
    votes = [call(talk, lead, f"snapshots/{snapshot}/{split}.jsonl?view=votes") for split in ("train", "eval")]
    found = sorted(votes[0] + votes[1], key=lambda row: len(row["prompt"]))
    assert [] in votes  # one conversation falls in one split
    said = [message["content"] for message in found[-1]["prompt"]]
    assert said == ["Question 0", chosen[0], "Question 1", chosen[1], "Question 2"]
    assert {one["model"] for one in found[0]["completions"]} == {"key-of-model-one", "key-of-model-two"}


def test_both_stream_in_beside_each_other_before_they_are_judged(talking, annotator, open_page, talk):
    one, two = threading.Semaphore(0), threading.Semaphore(0)
    talk.models.script("model-one", gated(one, ["aaaa ", "bbbb ", "cccc"]))
    talk.models.script("model-two", gated(two, ["dddd ", "eeee ", "ffff"]))
    page = begin(open_page, annotator)
    speak(page, "Hello")
    one.release(3)
    page.wait_for_selector("[data-streams]:not([hidden])")
    for number, length in ((1, 5), (2, 10)):
        two.release()
        until(
            page, f"[...document.querySelectorAll('[data-stream]')].every((box) => box.textContent.length === {length})"
        )
        assert page.locator("[data-content]").is_disabled(), number
    two.release()
    wait_ready(page)
    assert sorted(texts_of(page)) == ["aaaa bbbb cccc", "dddd eeee ffff"]


def test_nothing_that_reaches_the_page_tells_the_models_apart(talking, annotator, open_page, talk):
    page = open_page(annotator, BENCH)
    seen: list[str] = []
    page.on(
        "response",
        lambda response: seen.append(response.text()) if response.ok and "static" not in response.url else None,
    )
    page.on("websocket", lambda found: found.on("framereceived", lambda data: seen.append(str(data))))
    page.get_by_role("button", name="Begin a conversation").click()
    page.wait_for_selector("[data-talk]")
    speak(page, "Hello")
    wait_ready(page)
    page.keyboard.press("1")
    page.wait_for_selector(".said-assistant")
    seen.append(page.content())
    text = "\n".join(seen)
    assert '"over": true' in text
    for secret in (SERVER_NAME, "model-one", "model-two", "key-of-model", *TOLD, f":{talk.models.server_port}"):
        assert secret not in text
    for speaker in Turn.objects.get().speakers:
        assert str(speaker["seed"]) not in text


def test_a_page_reloaded_in_the_middle_sees_the_rest(talking, annotator, open_page, talk):
    one, two = threading.Semaphore(1), threading.Semaphore(1)
    talk.models.script("model-one", gated(one, ["aaaa ", "bbbb"]))
    talk.models.script("model-two", gated(two, ["cccc ", "dddd"]))
    page = begin(open_page, annotator)
    speak(page, "Hello")
    until(page, "document.querySelector('[data-stream=a]').textContent.length === 5")
    page.reload()
    until(page, "document.querySelector('[data-stream=a]').textContent.length === 5")
    one.release()
    two.release()
    wait_ready(page)
    assert sorted(texts_of(page)) == ["aaaa bbbb", "cccc dddd"]
    assert Turn.objects.count() == 1


def test_a_server_that_dies_in_the_middle_is_said_and_trying_again_works(talking, annotator, open_page, talk):
    talk.models.script("model-one", cut_after("half a "))
    page = begin(open_page, annotator)
    speak(page, "Where is my parcel?")
    page.wait_for_selector("[data-trouble]:not([hidden])")
    assert "broke off" in page.locator("[data-trouble-text]").inner_text()
    assert page.locator("[data-content]").input_value() == "Where is my parcel?"
    assert not Task.objects.exists()
    talk.models.script("model-one", echo("Uno"))
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    wait_ready(page)
    assert Turn.objects.get().content == "Where is my parcel?"


def test_a_message_can_be_changed_after_a_failure(talking, annotator, open_page, talk):
    talk.models.script("model-one", cut_after())
    page = begin(open_page, annotator)
    speak(page, "Helo")
    page.wait_for_selector("[data-trouble]:not([hidden])")
    talk.models.script("model-one", echo("Uno"))
    until(page, "document.activeElement.matches('[data-content]')")
    page.keyboard.press("Control+A")
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    wait_ready(page)
    assert [turn.content for turn in Turn.objects.order_by("attempt")] == ["Helo", "Hello"]
    assert page.locator(".said-user").count() == 1


def test_a_live_process_killed_in_the_middle_costs_nothing_but_time(talking, annotator, open_page, talk):
    one, two = threading.Semaphore(1), threading.Semaphore(1)
    talk.models.script("model-one", gated(one, ["aaaa ", "bbbb"]))
    talk.models.script("model-two", gated(two, ["cccc ", "dddd"]))
    page = begin(open_page, annotator)
    page.set_default_timeout(30_000)
    speak(page, "Hello")
    until(page, "document.querySelector('[data-stream=a]').textContent.length === 5")
    talk.kill_live()
    one.release(20)
    two.release(20)
    talk.start_live()
    wait_ready(page)
    assert sorted(texts_of(page)) == ["aaaa bbbb", "cccc dddd"]
    assert Turn.objects.get().epoch == 2 and Task.objects.count() == 1


def test_without_a_live_process_the_page_says_so_little_and_catches_up(talking, annotator, open_page, talk):
    page = begin(open_page, annotator)
    page.set_default_timeout(30_000)
    talk.kill_live()
    speak(page, "Hello")
    page.wait_for_selector("[data-streams]:not([hidden])")
    talk.start_live()
    wait_ready(page)
    assert len(texts_of(page)) == 2 and all(texts_of(page))
    assert Turn.objects.get().content == "Hello"  # once, however long nobody was there to answer


def test_a_message_typed_offline_is_delivered_once_when_the_network_is_back(talking, annotator, open_page):
    page = begin(open_page, annotator)
    until(page, "document.activeElement.matches('[data-content]')")
    page.keyboard.type("Draft")
    page.reload()
    assert page.locator("[data-content]").input_value() == "Draft"
    until(page, "document.activeElement.matches('[data-content]')")
    page.keyboard.press("End")
    page.context.set_offline(True)
    page.keyboard.type(" and more")
    page.keyboard.press("Enter")
    page.wait_for_selector(".bench-state[data-state=offline]")
    assert "kept here" in page.locator("[data-said]").first.inner_text()
    assert not Turn.objects.exists()
    page.context.set_offline(False)
    wait_ready(page)
    assert Turn.objects.get().content == "Draft and more"


def test_a_message_whose_answer_got_lost_is_one_turn(talking, annotator, open_page):
    page = begin(open_page, annotator)
    lost = []

    def lose_the_answer(route) -> None:
        if not lost:
            lost.append(route.fetch().status)
            route.abort()
        else:
            route.continue_()

    page.route("**/turns/", lose_the_answer)
    speak(page, "Hello")
    wait_ready(page)
    assert lost == [202] and Turn.objects.count() == 1


def test_stopping_keeps_what_was_shown(talking, annotator, open_page, talk):
    one, two = threading.Semaphore(2), threading.Semaphore(2)
    talk.models.script("model-one", gated(one, [f"aaa{n} " for n in range(50)]))
    talk.models.script("model-two", gated(two, [f"bbb{n} " for n in range(50)]))
    page = begin(open_page, annotator)
    speak(page, "Hello")
    until(page, "document.querySelector('[data-stream=a]').textContent.length === 10")
    page.keyboard.press("s")
    wait_ready(page)
    one.release(100)
    two.release(100)
    assert sorted(texts_of(page)) == ["aaa0 aaa1", "bbb0 bbb1"]


def test_both_bad_offers_both_again_or_to_go_on(talking, annotator, open_page, talk):
    page = begin(open_page, annotator)
    speak(page, "Hello")
    wait_ready(page)
    bad = page.locator("[data-verdict][data-none-good]")
    page.keyboard.press(bad.get_attribute("data-verdict") if bad.count() else "n")
    if not bad.count():
        page.keyboard.press("1")
    page.wait_for_selector("[data-trouble]:not([hidden])")
    assert "called both bad" in page.locator("[data-trouble-text]").inner_text()
    talk.models.script("model-one", say("Something new")).script("model-two", say("Something else"))
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    wait_ready(page)
    assert sorted(texts_of(page)) == ["Something else", "Something new"]
    page.keyboard.press("1")
    until(page, "document.querySelectorAll('.said-assistant').length === 1")
    assert Judgement.objects.count() == 2
    assert [turn.attempt for turn in Turn.objects.order_by("pk")] == [1, 2]


def test_every_part_of_the_form_is_asked_for_and_a_correction_goes_on(talking, annotator, open_page):
    change_project(
        project=talking,
        form={"ranking": True, "corrections": True, "acceptable": True, "flags": ["rude"], "rationale": "required"},
    )
    page = begin(open_page, annotator)
    speak(page, "Hello")
    wait_ready(page)
    page.keyboard.press("b")
    page.keyboard.press("e")
    until(page, "document.activeElement.matches('[data-correction-field]')")
    page.keyboard.press("Control+A")
    page.keyboard.type("My own words.")
    page.keyboard.press("Escape")
    page.keyboard.press("y")
    page.keyboard.press("w")
    page.keyboard.type("It is clearer")
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.wait_for_selector(".said-assistant")
    assert page.locator(".said-assistant").inner_text().endswith("My own words.")
    feedback = Judgement.objects.get().feedback
    assert feedback["rationale"] == "It is clearer" and list(feedback["corrections"].values()) == ["My own words."]


def test_a_draft_of_the_judgement_survives_a_reload(talking, annotator, open_page):
    change_project(project=talking, form={"ranking": True, "rationale": "required"})
    page = begin(open_page, annotator)
    speak(page, "Hello")
    wait_ready(page)
    page.keyboard.press("3")
    page.keyboard.press("w")
    page.keyboard.type("because")
    page.reload()
    wait_ready(page)
    assert page.locator("[data-rationale-field]").input_value() == "because"
    assert page.locator("[data-verdict='3']").get_attribute("aria-pressed") == "true"


def test_the_key_table_tells_what_each_state_can_do(talking, annotator, open_page):
    page = begin(open_page, annotator)
    until(page, "document.activeElement.matches('[data-content]')")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    said = page.locator("[data-help-dialog]").inner_text()
    assert "shift+Enter" in said and "begin another conversation" in said
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    speak(page, "?ns rse")  # no key fires in the field
    wait_ready(page)
    assert Turn.objects.get().content == "?ns rse"
    page.keyboard.press("?")
    assert "submit" in page.locator("[data-help-dialog]").inner_text()


def test_on_a_phone_everything_can_be_touched(talking, annotator, open_page):
    page = open_page(annotator, BENCH, **PHONE)
    page.get_by_role("button", name="Begin a conversation").tap()
    page.wait_for_selector("[data-talk]")
    page.locator("[data-content]").fill("Hello")
    page.locator("[data-send]").tap()
    wait_ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("[data-verdict]").all():
        box = button.bounding_box()
        assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.locator("[data-verdict='1']").tap()
    page.wait_for_selector(".said-assistant")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_lead_sets_conversations_up_and_tries_them_in_the_console(project, lead, open_page, talk):
    page = open_page(lead, "/projects/support/conversation/")
    page.wait_for_selector("text=model-one, model-two")
    for number, model in enumerate(("model-one", "model-two")):
        page.locator(f"[name=speaker-{number}-model]").fill(model)
    page.locator("button[value=speaker-0]").click()
    page.wait_for_selector("text=First words after")
    page.get_by_label("Annotators of this project hold conversations").check()
    page.get_by_role("button", name="Save").last.click()
    page.wait_for_selector("text=Saved.")
    page.goto(talk.url(BENCH))
    page.get_by_role("button", name="Begin a conversation").click()
    speak(page, "Hello")
    wait_ready(page)
    asked = Task.objects.get().completions.values_list("model_key", flat=True)
    assert sorted(name.split("/")[-1] for name in asked) == ["model-one", "model-two"]


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious_while_one_talks(talking, annotator, open_page, talk, look):
    page = open_page(annotator, BENCH, **LOOKS[look])
    found = {"list": serious(page)}
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-talk]")
    found["begun"] = serious(page)
    speak(page, "What can you do?")
    wait_ready(page)
    found["to be judged"] = serious(page)
    page.keyboard.press("1")
    until(page, "document.querySelectorAll('.said-assistant').length === 1")
    found["gone on"] = serious(page)
    assert {state: problems for state, problems in found.items() if problems} == {}
