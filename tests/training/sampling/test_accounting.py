"""Budgets that survive kills, and rates, by a clock of our own."""

from pathlib import Path
from threading import Thread

import pytest

from training.sampling.accounting import BudgetReached, Ledger, Prices, RateLimit, most_prompt_tokens


def test_a_request_that_could_exceed_the_budget_is_not_sent() -> None:
    ledger = Ledger(prices=Prices(prompt=1.0, new=10.0), max_cost=0.001)
    first = ledger.reserve(100, 50)  # at most 0.0006
    ledger.settle(first, 80, 20)  # 0.00028
    second = ledger.reserve(100, 50)
    ledger.settle(second, 100, 50)
    assert ledger.cost == pytest.approx(0.00088)
    with pytest.raises(BudgetReached, match=r"0.00088 of 0.001.*"):
        ledger.reserve(100, 50)
    assert ledger.reserve(20, 10) == 2


def test_a_token_budget_counts_prompts_and_completions() -> None:
    ledger = Ledger(max_tokens=100)
    ledger.settle(ledger.reserve(60, 30), 40, 10)
    with pytest.raises(BudgetReached, match="100 tokens"):
        ledger.reserve(40, 11)
    ledger.reserve(40, 10)


def test_what_is_under_way_is_waited_for_before_the_budget_counts_as_reached() -> None:
    ledger = Ledger(max_tokens=100)
    first = ledger.reserve(50, 50)
    got: list[int] = []
    waiting = Thread(target=lambda: got.append(ledger.reserve(30, 30)))
    waiting.start()
    ledger.settle(first, 20, 20)
    waiting.join(20)
    assert got == [1]


def test_a_killed_run_counts_what_it_sent_and_never_settled_with_its_most(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    ledger = Ledger(path, prices=Prices(1, 2))
    ledger.settle(ledger.reserve(100, 50), 70, 20)
    ledger.lose(ledger.reserve(100, 50))
    ledger.reserve(100, 50)
    with path.open("a") as file:
        file.write('{"sent": 3, "prompt_to')  # killed while writing
    after = Ledger(path, prices=Prices(1, 2))
    assert (after.used.prompt_tokens, after.used.new_tokens) == (270, 120)
    assert (after.used.requests, after.used.lost) == (3, 2)
    assert after.cost == pytest.approx((270 + 240) / 1e6)
    assert after.reserve(1, 1) == 3
    after.close()
    assert Ledger(path).used.prompt_tokens == 271


def test_requests_and_tokens_of_a_minute_are_limited() -> None:
    now = [0.0]
    limit = RateLimit(requests=2, tokens=100, clock=lambda: now[0])
    first, pause = limit.take(60)
    assert first is not None and pause == 0
    now[0] = 10.0
    entry, pause = limit.take(60)
    assert entry is None and pause == pytest.approx(50)  # the tokens of the first leave at 60
    limit.correct(first, 30)
    assert limit.take(60)[0] is not None
    assert limit.take(1) == (None, pytest.approx(50))  # two requests were sent
    now[0] = 60.0
    assert limit.take(1)[0] is not None
    now[0] = 1000.0
    assert limit.take(5000)[0] is not None  # larger than the limit, but alone
    assert limit.take(1)[0] is None


def test_prompts_are_never_counted_too_low() -> None:
    assert most_prompt_tokens([{"role": "user", "content": "äöü"}]) >= 6
