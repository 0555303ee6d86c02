"""The quality figures of a million votes: seconds of each, beside crowd-kit's Dawid-Skene where that is installed.

    python -m bench.statistics                    # about a minute
    python -m bench.statistics --votes 100000 --repeats 9 --out figures.json

Rankings of three completions by three of fifty annotators each, so a ranking gives three votes. Annotators are right
between 55 and 95 times in a hundred. Ours and crowd-kit's run in turns in one process on the same votes.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads that wait for each other on long vectors only lose time

import numpy

from labeling.quality.statistics import agreement, rankings, reliability
from labeling.quality.statistics.consensus import consensus_rankings, fit_consensus
from labeling.quality.statistics.crowd_bt import crowd_bt_of
from labeling.quality.statistics.votes import OTHER_WAY_ROUND, Rankings, Votes

COMPLETIONS = OVERLAP = 3
CROWD_KIT_ITERATIONS = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=1_000_000, help="votes on pairs (%(default)s)")
    parser.add_argument("--annotators", type=int, default=50, help="annotators (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="repeats (%(default)s)")
    parser.add_argument("--no-crowdkit", action="store_true", help="leave crowd-kit out even if it is installed")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    judged, truth = synthetic(args.votes, args.annotators)
    votes = Votes.drawn_from(judged)
    model = fit_consensus(votes)
    crowd_kit = None if args.no_crowdkit else crowd_kit_dawid_skene(votes)
    ours = {
        "votes from rankings": lambda: Votes.drawn_from(judged),
        "Dawid-Skene": lambda: fit_consensus(votes),
        "Crowd-BT with intervals": lambda: crowd_bt_of(votes),
        "consensus rankings": lambda: list(consensus_rankings(votes, model.posteriors)),
        "agreement": lambda: all_agreement(judged, votes),
    }
    if crowd_kit:
        ours["crowd-kit Dawid-Skene"] = crowd_kit
    seconds = timed(ours, args.repeats)
    own = [name for name in seconds if not name.startswith("crowd-kit")]
    seconds["all of ours together"] = [sum(lap) for lap in zip(*(seconds[name] for name in own), strict=True)]
    figures = {
        name: {"n": len(votes), "median": statistics.median(laps), "low": min(laps), "high": max(laps), "repeats": len(laps)}
        for name, laps in seconds.items()
    }  # fmt: skip
    print(f"{'':<26}{'votes':>10}{'median s':>10}{'fastest':>10}{'slowest':>10}{'repeats':>9}")
    for name, row in figures.items():
        print(
            f"{name:<26}{row['n']:>10,}{row['median']:>10.2f}{row['low']:>10.2f}{row['high']:>10.2f}{row['repeats']:>9}"
        )
    right = float((model.posteriors.argmax(axis=1) == truth[votes.task, votes.first % 3, votes.second % 3]).mean())
    print(f"Dawid-Skene: {model.n_iterations} iterations; right on {right:.4f} of {votes.n_pairs:,} pairs.")
    if crowd_kit:
        own_median, other = figures["Dawid-Skene"]["median"], figures["crowd-kit Dawid-Skene"]["median"]
        print(f"crowd-kit's takes {other / own_median:.1f} times as long (at most {CROWD_KIT_ITERATIONS} iterations).")
    else:
        print("crowd-kit was not compared: it is not installed here, or was left out.")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def synthetic(n_votes: int, n_annotators: int) -> tuple[Rankings, numpy.ndarray]:
    """Rankings, and of each task which of two completions is better (FIRST or SECOND), by their numbers in the task."""
    rng = numpy.random.default_rng(1)
    n_tasks = max(1, n_votes // (OVERLAP * 3))
    skill = rng.uniform(0.3, 3.0, n_annotators)
    quality = rng.normal(size=(n_tasks, COMPLETIONS))
    task = numpy.repeat(numpy.arange(n_tasks), OVERLAP)
    annotator = (rng.integers(n_annotators, size=n_tasks)[:, None] + numpy.arange(OVERLAP)).ravel() % n_annotators
    seen = quality[task] * skill[annotator][:, None] + rng.normal(size=(len(task), COMPLETIONS))
    # Half a step of a scale apart is a tie now and then.
    rank = numpy.round(-2 * seen).astype(int)
    item = task[:, None] * COMPLETIONS + numpy.arange(COMPLETIONS)
    truth = (quality[:, :, None] < quality[:, None, :]).astype(int)
    start = numpy.arange(len(task) + 1) * COMPLETIONS
    return Rankings(task, annotator, start, item.ravel(), rank.ravel()), truth


def all_agreement(judged: Rankings, votes: Votes) -> None:
    answers = agreement.Answers.of_votes(votes)
    agreement.pairwise_agreement(votes)
    agreement.krippendorff_alpha_nominal(answers)
    agreement.krippendorff_alpha_nominal(answers, swap=OTHER_WAY_ROUND)
    agreement.krippendorff_alpha_ordinal(rankings.ranks_as_answers(judged))
    agreement.fleiss_kappa(answers)
    rankings.kendall_tau(judged)
    rankings.kendall_w(judged)
    right, counted = reliability.sides_with_others(votes)
    reliability.shares_by_annotator(votes, right, counted, reliability.NOBODY_ELSE)


def crowd_kit_dawid_skene(votes: Votes) -> Callable[[], object] | None:
    try:
        import pandas
        from crowdkit.aggregation import DawidSkene
    except ImportError:
        return None
    frame = pandas.DataFrame({"task": votes.pair, "worker": votes.annotator, "label": votes.value})
    return lambda: DawidSkene(n_iter=CROWD_KIT_ITERATIONS).fit(frame)


def timed(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
