"""The client against a server that speaks the protocol, and all the ways in which one may not."""

import asyncio
import socket
import threading

import pytest

from labeling.conversation.client import server_state, stream_completion, try_speaker
from labeling.conversation.errors import PROBLEMS, ServerTrouble, sentence_for
from tests.labeling.conversation.model_server import (
    KEY,
    ScriptedServer,
    cut_after,
    echo,
    once,
    raw,
    refuse,
    say,
    stall_after,
)

MESSAGES = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
def scripted():
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _impatient(settings, monkeypatch):
    settings.MODEL_FIRST_TOKEN_SECONDS = 1
    settings.MODEL_NEXT_TOKEN_SECONDS = 1
    monkeypatch.setattr("labeling.conversation.client.RETRY_SECONDS", 0.05)


def ask(url: str, model: str = "m", key: str = KEY) -> tuple[str, str]:
    """The text and how it ended."""

    async def collect() -> tuple[str, str]:
        text, reason = "", ""
        speaker = {"server": "scripted", "model": model, "temperature": 0.7, "top_p": 0.9, "max_tokens": 50, "seed": 11}
        async for piece in stream_completion({"url": url, "key": key}, speaker, MESSAGES):
            text += piece.text
            reason = piece.finish_reason or reason
        return text, reason

    return asyncio.run(collect())


def trouble(url: str, model: str = "m") -> ServerTrouble:
    with pytest.raises(ServerTrouble) as found:
        ask(url, model)
    return found.value


def test_a_streamed_completion_arrives_with_what_was_asked_for(scripted):
    scripted.script("m", say("Hel", "lo", " wörld 🎉", reason="length"))
    assert ask(scripted.url) == ("Hello wörld 🎉", "length")
    headers, body = scripted.requests[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "m", "messages": MESSAGES, "stream": True, "temperature": 0.7, "top_p": 0.9, "max_tokens": 50,
        "seed": 11,
    }  # fmt: skip


def test_no_key_means_no_header(scripted):
    scripted.script("m", say("x"))
    ask(scripted.url, key="")
    assert "Authorization" not in scripted.requests[0][0]


def test_what_other_servers_do_differently_is_understood(scripted):
    whole = {"choices": [{"message": {"content": "all at once"}, "finish_reason": "stop"}]}
    event = b'data: {"choices":[{"delta":{"content":"a"}}]}\r\n\r\n'
    last = b'data:{"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    scripted.script("whole", lambda handler, _: handler.answer(200, whole))
    scripted.script("no-done", raw(event, last))
    scripted.script("comments", raw(b": hello\n\nevent: message\n", event, b'data: {"choices":[]}\n\n', last))
    scripted.script("split", raw(*[bytes([byte]) for byte in event + last]))
    scripted.script("reasons", raw(b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n', event, last))
    scripted.script("nul", say("a\x00b"))
    scripted.script("half", raw(b'data: {"choices":[{"delta":{"content":"a\\ud800"}}]}\n\n', last))
    assert ask(scripted.url, "whole") == ("all at once", "stop")
    for model in ("no-done", "comments", "split", "reasons"):
        assert ask(scripted.url, model) == ("a", "stop"), model
    assert ask(scripted.url, "nul")[0] == "a\ufffdb"
    assert ask(scripted.url, "half")[0] == "a?"


def test_a_busy_moment_and_a_restart_are_got_over(scripted):
    scripted.script("busy", once(refuse(429, Retry_After="0"), say("ok")))
    scripted.script("starting", once(refuse(503), say("ok")))
    assert ask(scripted.url, "busy") == ask(scripted.url, "starting") == ("ok", "stop")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (refuse(429, Retry_After="0"), "busy"),
        (refuse(429, Retry_After="3600"), "busy"),
        (refuse(429, Retry_After="Fri, 31 Dec 2027 23:59:59 GMT"), "busy"),
        (refuse(401), "refused"),
        (refuse(403), "refused"),
        (refuse(400), "refused"),
        (refuse(404), "no_model"),
        (refuse(500), "failed"),
        (refuse(502, b"<html>bad gateway</html>"), "failed"),
        (refuse(302, Location="http://127.0.0.1:1/"), "refused"),
        (refuse(400, {"error": {"message": "too long", "code": "context_length_exceeded"}}), "too_long"),
        (refuse(200, b"<html>it works!</html>"), "garbage"),
        (refuse(200, {"choices": []}), "garbage"),
        (refuse(200, {"choices": [{"message": {"content": 5}}]}), "garbage"),
        (raw(b"data: {oops\n\n"), "garbage"),
        (raw(b"data: [1, 2]\n\n"), "garbage"),
        (raw(b"data: " + b"[" * 100_000 + b"\n\n"), "garbage"),
        (raw(b'data: {"choices":[{"delta":{"content":7}}]}\n\n'), "garbage"),
        (raw(b'data: {"choices":[7]}\n\n'), "garbage"),
        (raw(*[b"x" * 65536] * 17), "garbage"),
        (raw(b'data: {"error":{"message":"out of memory"}}\n\n'), "failed"),
        (raw(), "cut"),
        (raw(b'data: {"choices":[{"delta":{"content":"half a sent'), "garbage"),
        (cut_after("one", "two"), "cut"),
        (lambda handler, _: handler.drop(), "cut"),
        (say(*["x" * 60_000] * 2), "too_much"),
    ],
)  # fmt: skip
def test_what_a_server_does_wrong_has_a_name_and_a_sentence(scripted, script, code):
    scripted.script("m", script)
    found = trouble(scripted.url)
    assert found.code == code, str(found)
    assert str(found).startswith("scripted: ")  # for leads
    assert code in PROBLEMS and "scripted" not in sentence_for(code)


@pytest.mark.parametrize("pieces", [(), ("a", "b")])
@pytest.mark.parametrize("sign_of_life", [b"", b": still here\n\n"])
def test_a_server_that_stalls_is_given_up_even_if_it_keeps_the_line_open(scripted, pieces, sign_of_life):
    done = threading.Event()
    scripted.script("m", stall_after(*pieces, until=done, sign_of_life=sign_of_life))
    assert trouble(scripted.url).code == "stalled"
    done.set()


def test_a_stopped_server_is_asked_again_once_and_then_said_to_be_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert trouble(f"http://127.0.0.1:{port}/v1").code == "unreachable"
    later = threading.Timer(0.0, lambda: None)

    def come_back() -> None:
        nonlocal later
        server = ScriptedServer(port).script("m", say("back"))
        later = server

    threading.Timer(0.02, come_back).start()
    # Refused at first, there at the second try: the retry comes after 0.05 s here.
    try:
        assert ask(f"http://127.0.0.1:{port}/v1")[0] == "back"
    finally:
        later.stop()


def test_leads_see_which_servers_answer_and_what_they_offer(scripted):
    scripted.script("small", echo("x")).script("large", echo("y"))
    state = asyncio.run(server_state("scripted", {"url": scripted.url, "key": KEY}))
    assert (state.models, state.problem) == (["small", "large"], "")
    gone = asyncio.run(server_state("gone", {"url": "http://127.0.0.1:1/v1", "key": ""}))
    assert gone.models == [] and "can't be reached" in gone.problem


def test_leads_can_try_a_speaker(scripted):
    scripted.script("m", say("Hello", "!")).script("bad", refuse(401))
    speaker = {"server": "scripted", "model": "m", "temperature": 1, "top_p": 1, "max_tokens": 500}
    server = {"url": scripted.url, "key": KEY}
    trial = asyncio.run(try_speaker(server, speaker))
    assert trial.text == "Hello!" and trial.problem == "" and 0 < trial.seconds_to_first <= trial.seconds
    assert scripted.requests[-1][1]["max_tokens"] == 24
    assert "HTTP 401" in asyncio.run(try_speaker(server, {**speaker, "model": "bad"})).problem
