"""Sampling by HTTP from a real server in a process of its own; what counts is what the server saw."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.sampling.openai_server import FINGERPRINT, MODEL, Running, completion_of, running_server
from training.sampling.accounting import BudgetReached, Ledger, Prices
from training.sampling.backends import Generation, GenerationRequest
from training.sampling.openai_compatible import (
    Endpoint,
    EndpointError,
    OpenAICompatibleBackend,
    retry_after_seconds,
    served_models,
)

KEY = "sk-very-secret-key"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("openai") / "requests.jsonl", key=KEY) as running:
        yield running


def backend_of(server: Running, *, ledger: Ledger | None = None, **changes: object) -> OpenAICompatibleBackend:
    endpoint = Endpoint(**{"url": server.url, "model": MODEL, "key": KEY, "attempts": 4, "concurrency": 2, **changes})
    return OpenAICompatibleBackend(endpoint, ledger=ledger, first_pause_seconds=0.01)


def request(text: str, seed: int = 1, **changes: object) -> GenerationRequest:
    settings = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 8} | changes
    return GenerationRequest(f"{text}/{seed}", ({"role": "user", "content": text},), seed, **settings)


def ask(backend: OpenAICompatibleBackend, *requests: GenerationRequest) -> dict[str, Generation]:
    found = {generation.key: generation for generation in backend.generate(requests)}
    backend.close()
    return found


def seen(server: Running, text: str) -> list[dict]:
    return [line for line in server.seen() if line["body"]["messages"][-1]["content"] == text]


def test_each_completion_is_a_request_of_its_own_with_its_seed_and_settings(server: Running) -> None:
    requests = [request("Where is it?", seed) for seed in range(20)]
    backend = backend_of(server, revision="abc123", name="gpu1")
    found = ask(backend, *requests)
    assert {key: generation.content for key, generation in found.items()} == {
        one.key: completion_of("Where is it?", one.seed, 6) for one in requests
    }
    bodies = [line["body"] for line in seen(server, "Where is it?")]
    assert sorted(body.pop("seed") for body in bodies) == list(range(20))
    for body in bodies:
        assert body == {
            "model": MODEL, "messages": [{"role": "user", "content": "Where is it?"}], "temperature": 0.7, "top_p": 0.9,
            "max_tokens": 8, "n": 1, "stream": False,
        }  # fmt: skip
    first = found["Where is it?/0"]
    assert (first.n_tokens, first.finished, first.problem) == (6, True, "")
    assert first.facts == {
        "endpoint": "gpu1", "served_model": MODEL, "revision": "abc123", "answered_by": MODEL, "system_fingerprint": FINGERPRINT,
    }  # fmt: skip
    (cut,) = ask(backend_of(server), request("Where is it?", 1, max_new_tokens=2)).values()
    assert (cut.n_tokens, cut.finished) == (2, False)


def test_connections_are_kept_alive_and_no_more_requests_run_at_once_than_allowed(server: Running) -> None:
    ask(backend_of(server, concurrency=3), *(request("Kept alive", seed) for seed in range(30)))
    lines = seen(server, "Kept alive")
    assert len(lines) == 30
    assert len({line["connection"] for line in lines}) <= 3
    assert max(line["under_way"] for line in lines) <= 3


def test_requests_run_at_once_as_allowed(tmp_path: Path) -> None:
    # The server answers nobody before eight are there.
    with running_server(tmp_path / "requests.jsonl", together=8) as running:
        found = ask(backend_of(running, key="", concurrency=8), *(request("At once", seed) for seed in range(16)))
        assert len(found) == 16
        assert max(line["under_way"] for line in running.seen()) == 8
        assert {line["authorization"] for line in running.seen()} == {None}


@pytest.mark.parametrize("wrong", ["429", "500", "503", "drop", "torn", "html", "shape", "nousage"])
def test_what_may_pass_is_tried_again_with_the_same_seed(server: Running, wrong: str) -> None:
    text = f"Passing !{wrong}=2"
    backend = backend_of(server)
    (found,) = ask(backend, request(text, 5)).values()
    assert found.content == completion_of(text, 5, 6)
    assert [line["body"]["seed"] for line in seen(server, text)] == [5, 5, 5]
    assert backend.n_retries == 2
    # What may have been generated counts with its most; a plain refusal costs nothing.
    used = backend.ledger.used
    assert used.lost == (0 if wrong in ("429", "503") else 2)
    assert used.new_tokens == 6 + 8 * used.lost


def test_a_server_that_stalls_is_given_up_in_time(server: Running) -> None:
    (found,) = ask(backend_of(server, timeout_seconds=0.3), request("Stalls !stall=1")).values()
    assert found.content and len(seen(server, "Stalls !stall=1")) == 2


@pytest.mark.parametrize(
    ("wrong", "said", "n_asked"),
    [
        ("500=9", "failed 4 times in a row, at last: 500: Internal error", 4),
        ("html=9", "its answer is no JSON: <html>Please log in", 4),
        ("drop=9", "the connection broke off", 4),
        ("later=9", "asks to wait for 86400 s", 1),
        ("quota=9", "the quota of its account is used up", 1),
        ("bad=9", "temperature must be at most 2", 1),
        ("redirect=9", "it redirects, which is not followed", 1),
    ],
)
def test_what_does_not_pass_ends_the_sampling_with_the_servers_words(
    server: Running, wrong: str, said: str, n_asked: int
) -> None:
    text = f"Lasting !{wrong}"
    with pytest.raises(EndpointError, match=said):
        ask(backend_of(server), request(text))
    assert len(seen(server, text)) == n_asked


def test_wrong_key_wrong_model_and_nobody_there(server: Running) -> None:
    with pytest.raises(EndpointError, match=r"refuses the key \(Incorrect API key: Bearer \*\*\*\)") as caught:
        ask(backend_of(server, key="sk-another"), request("Key"))
    assert "sk-another" not in str(caught.value)
    with pytest.raises(EndpointError, match="there is no model 'other', or the address is wrong"):
        ask(backend_of(server, model="other"), request("Model"))
    with pytest.raises(EndpointError, match="no connection"):
        ask(backend_of(server, url="http://127.0.0.1:1/v1"), request("Nobody"))
    assert served_models(Endpoint(server.url, MODEL, key=KEY)) == [MODEL]
    with pytest.raises(EndpointError, match="refuses the key"):
        served_models(Endpoint(server.url, MODEL))


def test_a_prompt_that_the_server_refuses_is_a_row_with_its_problem_and_the_others_go_on(server: Running) -> None:
    texts = ["Long !context=code", "Long !context=words", "Bad !filter=x", "Fine"]
    found = ask(backend_of(server), *map(request, texts))
    assert [found[f"{text}/1"].problem.partition(":")[0] for text in texts] == [
        "context length exceeded", "context length exceeded", "refused by the server's filter", "",
    ]  # fmt: skip
    assert found["Fine/1"].content
    assert all(len(seen(server, text)) == 1 for text in texts)


def test_what_was_under_way_is_yielded_before_an_error_is_raised(server: Running) -> None:
    requests = [request("Before", seed) for seed in range(3)] + [request("Then !bad=9")] + [request("After", 4)] * 60
    found = []
    with pytest.raises(EndpointError):
        for generation in backend_of(server, concurrency=4).generate(requests):
            found.append(generation.key)
    assert {"Before/0", "Before/1", "Before/2"} <= set(found)
    assert len(seen(server, "After")) < 60


def test_a_budget_ends_the_sampling_before_it_is_exceeded(server: Running, tmp_path: Path) -> None:
    prices = Prices(prompt=1.0, new=100.0)
    ledger = Ledger(tmp_path / "usage.jsonl", prices=prices, max_cost=0.01)
    found = []
    with pytest.raises(BudgetReached, match="has no room for one more request"):
        for generation in backend_of(server, ledger=ledger, concurrency=4).generate(
            [request("Dear", seed) for seed in range(40)]
        ):
            found.append(generation)
    n_asked = len(seen(server, "Dear"))
    assert len(found) == n_asked
    assert 5 < n_asked < 40
    cost = sum(prices.cost(4, generation.n_tokens) for generation in found)
    assert ledger.cost == pytest.approx(cost)
    # At most one request's own bound is left over.
    assert 0.01 - prices.cost(100, 8) < ledger.cost <= 0.01


def test_stopping_asks_for_nothing_more_and_yields_what_is_under_way(server: Running) -> None:
    found: list[Generation] = []
    backend = backend_of(server)
    backend.stop = lambda: len(found) >= 4
    for generation in backend.generate([request("Stop", seed) for seed in range(50)]):
        found.append(generation)
    assert 4 <= len(found) == len(seen(server, "Stop")) <= 7


def test_connections_go_to_the_judged_addresses_alone(server: Running) -> None:
    url = f"http://no-such-host.invalid:{server.port}/v1"
    (found,) = ask(backend_of(server, url=url, addresses=("127.0.0.1",)), request("Judged")).values()
    assert found.content
    assert seen(server, "Judged")[0]["host"] == f"no-such-host.invalid:{server.port}"
    with pytest.raises(EndpointError, match="no connection"):
        ask(backend_of(server, addresses=("127.0.0.2",), url=f"http://localhost:{server.port}/v1"), request("Elsewhere"))
    assert not seen(server, "Elsewhere")


def test_a_key_is_not_shown_with_the_endpoint() -> None:
    assert KEY not in repr(Endpoint("http://x/v1", MODEL, key=KEY))


def test_requests_of_a_minute_are_limited_at_the_server(server: Running) -> None:
    backend = backend_of(server, requests_per_minute=5)
    found: list[Generation] = []
    backend.stop = lambda: len(found) >= 5
    for generation in backend.generate([request("Limited", seed) for seed in range(9)]):
        found.append(generation)
    # The sixth would have to wait for a minute; stopping ends that wait.
    assert Counter(json.dumps(line["body"]["seed"]) for line in seen(server, "Limited")).total() == 5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"3", 3.0), (b"0.5", 0.5), (b"Wed, 21 Oct 2015 07:28:00 GMT", 0.0), (b"-1", None), (b"soon", None), (b"inf", None)],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: bytes, seconds: float | None) -> None:
    assert retry_after_seconds({b"Retry-After": value}) == seconds
