"""The model server over real HTTP, with a tiny random model behind it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.ports import free_port
from training.sampling.model_files import ModelFilesError
from training.sampling.server import ModelPlace, ModelServer, serve

SECRET = "a secret of the tests"
MESSAGES = [{"role": "user", "content": "Where is my order?"}]


class Models:
    """A resolver: the tiny model, two adapters on it, and one whose files are missing."""

    def __init__(self, places: dict[str, ModelPlace]) -> None:
        self.places = places

    def names(self) -> list[str]:
        return list(self.places)

    def place_of(self, name: str) -> ModelPlace | None:
        return self.places.get(name)


@pytest.fixture(scope="module")
def adapters(tiny_folder, tmp_path_factory) -> list[Path]:
    """Two LoRA adapters whose weights are not zero, so that they say something else than the base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(tiny_folder), LoraConfig(r=4, target_modules="all-linear")
        )
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
        folder = tmp_path_factory.mktemp("adapter") / str(seed)
        model.save_pretrained(folder)
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def server(tiny_folder, adapters) -> Iterator[ModelServer]:
    places = {
        "tiny@1": ModelPlace(str(tiny_folder)),
        "policy@1": ModelPlace(str(tiny_folder), str(adapters[0])),
        "policy@2": ModelPlace(str(tiny_folder), str(adapters[1])),
        "gone@1": ModelPlace("/nowhere/at/all"),
    }
    running = ModelServer(Models(places), secret=SECRET).listen("127.0.0.1", 0)
    stopped = threading.Event()
    thread = threading.Thread(target=serve, args=(running,), kwargs={"stopped": stopped})
    thread.start()
    yield running
    stopped.set()
    thread.join(20)


def request_to(server: ModelServer, path: str, body: Any = None, *, secret: str = SECRET) -> urllib.request.Request:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    return urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, headers)


def ask(server: ModelServer, path: str, body: Any = None, **extra: Any) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request_to(server, path, body, **extra), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def chat(model: str = "tiny@1", **extra: Any) -> dict[str, Any]:
    return {"model": model, "messages": MESSAGES, "max_tokens": 12, "seed": 5, "temperature": 0.9, **extra}


def events(server: ModelServer, body: dict[str, Any]) -> list[Any]:
    """Every event of a streamed answer, as the wire has it; [DONE] as text."""
    with urllib.request.urlopen(
        request_to(server, "/v1/chat/completions", {**body, "stream": True}), timeout=60
    ) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        found = []
        for line in answer.read().decode().split("\n\n"):
            if line:
                assert line.startswith("data: ")
                found.append(line[6:] if line == "data: [DONE]" else json.loads(line[6:]))
        return found


def text_of(found: list[Any]) -> str:
    return "".join(
        event["choices"][0]["delta"].get("content", "")
        for event in found
        if isinstance(event, dict) and event["choices"]
    )


def test_the_models_offered_are_listed(server):
    status, body = ask(server, "/v1/models")
    assert status == 200
    assert [model["id"] for model in body["data"]] == ["tiny@1", "policy@1", "policy@2", "gone@1"]
    assert ask(server, "/v1/models/policy%401")[1]["id"] == "policy@1"
    assert ask(server, "/v1/models/nothing")[0] == 404


def test_asking_about_a_model_loads_it(server):
    server.decoder.bases.clear()
    ask(server, "/v1/models/tiny%401")
    deadline = time.monotonic() + 30
    while not server.decoder.bases:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert ask(server, "/v1/models/gone%401")[0] == 200  # whoever uses it is told


def test_a_streamed_completion_says_the_same_as_a_whole_one_and_ends_with_done(server):
    found = events(server, chat(stream_options={"include_usage": True}))
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert found[-1] == "[DONE]"
    assert found[-2]["usage"]["completion_tokens"] <= 12
    assert found[-3]["choices"][0]["finish_reason"] in ("stop", "length")
    status, whole = ask(server, "/v1/chat/completions", chat())
    assert status == 200
    assert whole["choices"][0]["message"]["content"] == text_of(found)
    assert len(found) > 4  # it came in pieces


def test_seed_temperature_and_model_decide_the_text(server):
    def said(**extra: Any) -> str:
        return ask(server, "/v1/chat/completions", chat(**extra))[1]["choices"][0]["message"]["content"]

    assert said() == said()
    assert said(seed=6) != said()
    assert said(temperature=0) == said(temperature=0, seed=99)
    texts = {name: said(model=name, temperature=0) for name in ("tiny@1", "policy@1", "policy@2")}
    assert len(set(texts.values())) == 3
    assert said(model="tiny@1", temperature=0) == texts["tiny@1"]  # adapters on the shared base left it as it was


def test_an_adapter_on_the_shared_base_says_what_a_merged_one_says(server, tiny_folder, adapters):
    import torch

    from training.sampling.backends import GenerationRequest
    from training.sampling.transformers_backend import TransformersBackend

    request = GenerationRequest("", tuple(MESSAGES), seed=1, temperature=0, max_new_tokens=8)
    merged = next(TransformersBackend(str(tiny_folder), str(adapters[0]), bfloat16=False).generate([request]))
    server.decoder.dtype = torch.float32
    server.decoder.bases.clear()
    _, body = ask(server, "/v1/chat/completions", chat("policy@1", temperature=0, max_tokens=8))
    assert body["choices"][0]["message"]["content"].strip() == merged.content


def test_many_at_once_all_progress_and_say_what_they_say_alone(server):
    import torch

    server.decoder.dtype = torch.float32  # so that a batch's rounding tips no token
    server.decoder.bases.clear()
    wanted = [chat(name, seed=seed, max_tokens=5 + seed) for seed in range(6) for name in ("tiny@1", "policy@1")]
    alone = [text_of(events(server, body)) for body in wanted]
    together: list[str] = [""] * len(wanted)

    def one(place: int) -> None:
        together[place] = text_of(events(server, wanted[place]))

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_two_streams_are_interleaved(server):
    """The second gets its first token long before the first is finished."""
    order: list[str] = []
    first_began = threading.Event()

    def follow(name: str, wait: bool) -> None:
        if wait:
            assert first_began.wait(30)
        body = {**chat(max_tokens=300, temperature=1.5, seed=3), "stream": True}
        with urllib.request.urlopen(request_to(server, "/v1/chat/completions", body), timeout=60) as answer:
            for line in answer:
                if b'"content"' in line:
                    order.append(name)
                    first_began.set()

    threads = [threading.Thread(target=follow, args=("a", False)), threading.Thread(target=follow, args=("b", True))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert order.index("b") < len(order) - 1 - order[::-1].index("a")


def test_who_hangs_up_frees_the_place_in_the_batch(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = json.dumps({**chat(max_tokens=480, seed=1, temperature=2), "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {SECRET}"})
    answer = connection.getresponse()
    answer.readline()
    answer.close()
    connection.close()
    deadline = time.monotonic() + 30
    while server.n_active or any(base.is_busy for base in server.decoder.bases.values()):
        assert time.monotonic() < deadline, "it went on sampling for nobody"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "unknown@9"}, 404, "model"),
        ({"model": 5}, 400, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hello"}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"seed": 1.5}, 400, "seed"),
        ({"n": 2}, 400, "n"),
        ({"max_tokens": 4000}, 400, "messages"),
        ({"model": "gone@1"}, 503, None),
    ],
)
def test_what_cannot_be_done_is_said_in_the_protocols_own_shape(server, change, status, param):
    answered, body = ask(server, "/v1/chat/completions", {**chat(), **change})
    assert answered == status
    assert set(body["error"]) == {"message", "type", "param", "code"} and body["error"]["message"]
    assert body["error"]["param"] == param


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b"[]"])
def test_a_body_that_is_no_request_is_refused(server, body):
    assert ask(server, "/v1/chat/completions", body)[0] == 400


def test_nobody_without_the_secret_gets_anything(server):
    for path, body in (("/v1/models", None), ("/v1/chat/completions", chat())):
        for secret in ("", "wrong", SECRET + "x", "ä"):
            request = request_to(server, path, body)
            request.add_header("Authorization", f"Bearer {secret}".encode().decode("latin-1"))
            with pytest.raises(urllib.error.HTTPError) as refusal:
                urllib.request.urlopen(request, timeout=60)
            assert refusal.value.code == 401


def test_only_the_loopback_can_be_listened_on():
    for host in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(ValueError, match="other machines"):
            ModelServer(Models({}), secret=SECRET).listen(host, 0)


def test_pickled_weights_are_refused(tmp_path, tiny_folder):
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    from training.sampling.backends import GenerationRequest
    from training.sampling.decoder import Decoder

    decoder = Decoder()
    with pytest.raises(ModelFilesError, match="pickled"):
        decoder.start(str(folder), None, GenerationRequest("", tuple(MESSAGES), seed=1))
    decoder.close()


# --- the process ----------------------------------------------------------------------------------
KNOCK = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def knock(port: int, data: bytes = KNOCK) -> bytes:
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(data)
                return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def on_demand() -> Iterator[Any]:
    started: list[subprocess.Popen] = []

    def start(*command: str) -> tuple[int, subprocess.Popen]:
        port = free_port()
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "training.sampling.on_demand", "127.0.0.1", str(port), "--", *command],
                cwd=settings.BASE_DIR, env={**os.environ, "PREFLOOP_HOME": str(settings.HOME)},
            )
        )  # fmt: skip
        return port, started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_starts_its_server_when_somebody_knocks_and_again_after_it_ended(on_demand):
    command = [sys.executable, "manage.py", "serve_models", "--idle-seconds", "1"]
    port, process = on_demand(*command)
    assert b"401" in knock(port).split(b"\r\n")[0]
    assert len(children_of(process.pid)) == 1
    deadline = time.monotonic() + 30
    while children_of(process.pid):
        assert time.monotonic() < deadline, "an idle server did not end"
        time.sleep(0.05)
    assert b"401" in knock(port).split(b"\r\n")[0]
    (child,) = children_of(process.pid)
    assert "torch" not in Path(f"/proc/{child}/maps").read_text()
    os.kill(child, signal.SIGKILL)
    assert b"HTTP/1.1" in knock(port)


def test_a_server_that_cannot_start_is_said_at_once(on_demand):
    port, process = on_demand(sys.executable, "-c", "raise SystemExit(3)")
    for _ in range(2):
        answer = knock(port)
        assert answer.startswith(b"HTTP/1.1 503") and b"could not be started" in answer
    assert process.poll() is None
