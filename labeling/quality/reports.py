"""The figures of a project's judgements, from their columns. One thing after another, each on arrays."""

from collections import Counter
from typing import Any

import numpy

from labeling.accounts.models import User
from labeling.projects.models import Project
from labeling.projects.services import pseudonym_of
from labeling.quality import statistics
from labeling.quality.columns import Columns, Said
from labeling.quality.statistics import Answers, Figure, Rankings, Votes
from labeling.quality.statistics import consensus as consensus_model
from labeling.quality.statistics.crowd_bt import crowd_bt
from labeling.quality.statistics.rankings import position_bias_of
from labeling.quality.statistics.reliability import NOBODY_ELSE, DawidSkene, shares_by_annotator, sides_with_others
from labeling.quality.statistics.votes import SWAPPED

SHAPE = 1  # raised when the figures change, for reports outlive the program
MOST_PAIRS = 50  # of annotators with a kappa
MOST_TAGS = 50
PARTS = 20  # of agreement over time
LEAST_TASKS_A_PART = 5
CROWD_BT = (
    "Crowd-BT: the probability of voting for the better completion as all votes score them; interval from the curvature. "
    "With few votes a pair its level is rough and its order is what to trust"
)


def figures_of(
    project: Project, columns: Columns, tags: dict[str, numpy.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures as the API gives them, and the model behind the consensus, by user id.

    Late (surplus) answers count: they were judged just as blindly. Agreement is given over all annotators and, in
    `agreement_of_people`, over people alone, since a simulated annotator agrees with itself too well.
    """
    names = [pseudonym_of(project, User(pk=pk)) for pk in columns.annotators]
    votes = Votes.drawn_from(columns.rankings)
    model = consensus_model.fit_consensus(votes) if len(votes) else None
    agreement = _agreement(columns.rankings, votes) | _said(columns.ratings, columns.acceptable)
    of_people = agreement
    if not columns.is_person.all():
        of_people = _of_people(columns, votes)
    n_judged = numpy.bincount(columns.task, minlength=len(columns.tasks))
    n_ranked = numpy.bincount(columns.rankings.task, minlength=len(columns.tasks))
    figures = {
        "n_tasks": len(columns.tasks),
        "n_tasks_judged_twice": int((n_ranked > 1).sum()),
        "n_judgements": len(columns),
        "n_annotators": len(columns.annotators),
        "n_votes": len(votes),
        "judgements_a_task": float(n_judged.mean()) if len(n_judged) else None,
        "annotator_kinds": dict(Counter(columns.kinds)),
        "agreement": agreement | _kappas(votes, names),
        "agreement_of_people": of_people,
        "agreement_by_tag": _by_tag(votes, tags, n_ranked),
        "agreement_over_time": _over_time(columns, votes, n_ranked),
        "position_bias": position_bias_of(len(columns.won), columns.won.sum(), columns.chance.sum()),
        "seconds_median": statistics.median_seconds(columns.seconds[~numpy.isnan(columns.seconds)].tolist()),
        "annotators": [],
        "consensus_method": consensus_model.METHOD,
    }
    eta, figures["annotators"] = _annotators(columns, votes, names, model)
    return figures, _consensus(columns, model, eta)


def nothing_yet(reason: str) -> dict[str, Any]:
    """What is shown of a large project before its first report: the same keys, each figure with why it is missing."""
    why = statistics.undefined(reason)
    agreement = dict.fromkeys(("pairwise_raw", "krippendorff_alpha_nominal", "krippendorff_alpha_symmetric"), why)
    return {
        "n_tasks": 0, "n_tasks_judged_twice": 0, "n_judgements": 0, "n_annotators": 0, "n_votes": 0,
        "judgements_a_task": None, "annotator_kinds": {}, "agreement": agreement, "agreement_of_people": agreement,
        "agreement_by_tag": {}, "agreement_over_time": [], "position_bias": why, "seconds_median": None,
        "annotators": [], "consensus_method": consensus_model.METHOD,
    }  # fmt: skip


def _agreement(rankings: Rankings, votes: Votes) -> dict[str, Figure]:
    answers = Answers.of_votes(votes)
    return {
        "pairwise_raw": statistics.pairwise_agreement(votes),
        # The first of a pair is the completion that was entered first.
        "krippendorff_alpha_nominal": statistics.krippendorff_alpha_nominal(answers),
        "krippendorff_alpha_symmetric": statistics.krippendorff_alpha_nominal(answers, swap=statistics.OTHER_WAY_ROUND),
        "krippendorff_alpha_ordinal": statistics.krippendorff_alpha_ordinal(statistics.ranks_as_answers(rankings)),
        "fleiss_kappa": statistics.fleiss_kappa(answers),
        "kendall_tau": statistics.kendall_tau(rankings),
        "kendall_w": statistics.kendall_w(rankings),
    }


def _said(ratings: dict[str, Said], acceptable: Said) -> dict[str, Figure]:
    """A figure for each axis that two gave for one completion."""
    figures = {}
    for axis, said in ratings.items():
        if (answers := said.answers().judged_twice()).n_units:
            figures[f"krippendorff_alpha_interval:{axis}"] = statistics.krippendorff_alpha_interval(answers)
            figures[f"krippendorff_alpha_ordinal:{axis}"] = statistics.krippendorff_alpha_ordinal(answers)
    if (answers := acceptable.answers().judged_twice()).n_units:
        figures["krippendorff_alpha_nominal:acceptable"] = statistics.krippendorff_alpha_nominal(answers)
    return figures


def _of_people(columns: Columns, votes: Votes) -> dict[str, Figure]:
    is_person, whole = columns.is_person, columns.rankings
    rows = numpy.flatnonzero(is_person[whole.annotator]) if len(whole) else numpy.zeros(0, dtype=int)
    sizes = whole.sizes[rows]
    start = numpy.concatenate([[0], numpy.cumsum(sizes)])
    cells = numpy.repeat(whole.start[rows] - start[:-1], sizes) + numpy.arange(start[-1])
    rankings = Rankings(whole.task[rows], whole.annotator[rows], start, whole.item[cells], whole.rank[cells])

    def said_by_people(said: Said) -> Said:
        return said.only(is_person[said.annotator]) if len(said.annotator) else said

    ratings = {axis: said_by_people(said) for axis, said in columns.ratings.items()}
    of_people = votes.only(is_person[votes.annotator]) if len(votes) else votes
    return _agreement(rankings, of_people) | _said(ratings, said_by_people(columns.acceptable))


def _kappas(votes: Votes, names: list[str]) -> dict[str, Figure]:
    """Of the pairs of annotators with most in common."""
    n = len(names)
    order = numpy.lexsort((votes.annotator, votes.pair))
    annotator, pair = votes.annotator[order], votes.pair[order]
    shared: Counter[int] = Counter()
    # Votes on one pair stand together, annotators ascending: compare each with the next, the one after, and so on.
    for step in range(1, int(numpy.bincount(pair).max(initial=0))):
        same = pair[step:] == pair[:-step]
        codes, counts = numpy.unique(annotator[:-step][same] * n + annotator[step:][same], return_counts=True)
        shared.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
    figures = {}
    by_annotator: dict[int, numpy.ndarray] = {}
    for code, _ in sorted(shared.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]:
        one, other = divmod(code, n)
        rows = [by_annotator.setdefault(by, numpy.flatnonzero(votes.annotator == by)) for by in (one, other)]
        pairs, left, right = numpy.intersect1d(votes.pair[rows[0]], votes.pair[rows[1]], return_indices=True)
        first, second = votes.value[rows[0][left]], votes.value[rows[1][right]]
        tasks, both = votes.task[pairs], f"{names[one]}|{names[other]}"
        figures[f"cohen_kappa:{both}"] = statistics.cohen_kappa(first, second, tasks=tasks)
        # Each pair entered both ways round, so that it doesn't matter which completion was entered first.
        other_way = numpy.asarray(SWAPPED)
        sides = [numpy.concatenate([said, other_way[said]]) for said in (first, second)]
        figure = statistics.cohen_kappa(*sides, tasks=numpy.tile(tasks, 2))
        figures[f"cohen_kappa_symmetric:{both}"] = figure | {"n": len(pairs)}
    return figures


def _two_figures(votes: Votes) -> dict[str, Figure]:
    answers = Answers.of_votes(votes)
    return {
        "pairwise_raw": statistics.pairwise_agreement(votes),
        "krippendorff_alpha_symmetric": statistics.krippendorff_alpha_nominal(answers, swap=statistics.OTHER_WAY_ROUND),
    }


def _by_tag(votes: Votes, tags: dict[str, numpy.ndarray], n_ranked: numpy.ndarray) -> dict[str, dict[str, Any]]:
    """Of the tags with most tasks that two ranked."""
    shared = {tag: tasks[n_ranked[tasks] > 1] for tag, tasks in tags.items()}
    most = sorted((tag for tag in shared if len(shared[tag])), key=lambda tag: (-len(shared[tag]), tag))[:MOST_TAGS]
    figures = {}
    for tag in most:
        wanted = numpy.zeros(len(n_ranked), dtype=bool)
        wanted[shared[tag]] = True
        figures[tag] = {"n_tasks": len(shared[tag])} | _two_figures(votes.of_tasks(wanted))
    return figures


def _over_time(columns: Columns, votes: Votes, n_ranked: numpy.ndarray) -> list[dict[str, Any]]:
    """In equal parts of the tasks that two ranked, by when each got its newest ranking."""
    newest = numpy.full(len(columns.tasks), -1)
    numpy.maximum.at(newest, columns.rankings.task, columns.judgement)
    tasks = numpy.flatnonzero(n_ranked > 1)
    tasks = tasks[numpy.argsort(newest[tasks], kind="stable")]
    n_parts = min(PARTS, len(tasks) // LEAST_TASKS_A_PART)
    parts = []
    for part in numpy.array_split(tasks, n_parts) if n_parts else []:
        wanted = numpy.zeros(len(columns.tasks), dtype=bool)
        wanted[part] = True
        ends = {"from": columns.when(newest[part[0]]), "to": columns.when(newest[part[-1]]), "n_tasks": len(part)}
        parts.append(ends | _two_figures(votes.of_tasks(wanted)))
    return parts


def _annotators(
    columns: Columns, votes: Votes, names: list[str], model: DawidSkene | None
) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Reliability by number of the annotator, and the rows of all, those with most judgements first."""
    n = len(names)
    no_vote = statistics.undefined("no vote on a pair of completions")
    n_judgements = numpy.bincount(columns.annotator, minlength=n)
    by_ranking = columns.rankings.annotator
    n_rankings, won, chance = (
        numpy.bincount(by_ranking, weights, n) for weights in (None, columns.won, columns.chance)
    )
    with_others, accuracy = [statistics.undefined(NOBODY_ELSE)] * n, [no_vote] * n
    eta = [no_vote] * n
    if model is not None:
        right, counted = sides_with_others(votes)
        with_others = _padded(shares_by_annotator(votes, right, counted, NOBODY_ELSE), with_others)
        accuracy = _padded(consensus_model.accuracies(votes, model), accuracy)
        eta = _padded(_crowd_bt(votes), eta)
    order = numpy.argsort(columns.annotator, kind="stable")
    ends = numpy.searchsorted(columns.annotator[order], numpy.arange(n + 1))
    rows = []
    for by in sorted(range(n), key=lambda by: (-n_judgements[by], columns.annotators[by])):
        seconds = columns.seconds[order[ends[by] : ends[by + 1]]]
        has_votes = model is not None and by < len(model.counts)
        rows.append(
            {
                "annotator": names[by], "kind": columns.kinds[by], "n": int(n_judgements[by]),
                "agreement_with_consensus": with_others[by], "reliability": accuracy[by], "crowd_bt": eta[by],
                "confusion": model.counts[by].round(2).tolist() if has_votes else None,  # type: ignore[union-attr]
                "position_bias": position_bias_of(int(n_rankings[by]), won[by], chance[by]),
                "gold": None,
                "seconds_median": statistics.median_seconds(seconds[~numpy.isnan(seconds)].tolist()),
            }
        )  # fmt: skip
    return eta, rows


def _padded(figures: list[Figure], usual: list[Figure]) -> list[Figure]:
    return figures + usual[len(figures) :]


def _crowd_bt(votes: Votes) -> list[Figure]:
    """The items are completions, so those in several tasks link them."""
    _, item = numpy.unique(numpy.concatenate([votes.first, votes.second]), return_inverse=True)
    first, second = item[: votes.n_pairs], item[votes.n_pairs :]
    found = crowd_bt(first[votes.pair], second[votes.pair], votes.annotator, votes.value, weight=votes.weight)
    n = numpy.bincount(votes.annotator, minlength=votes.n_annotators)
    method = CROWD_BT if found.converged else f"{CROWD_BT}. The search had not ended after {found.n_iterations} steps"
    return [
        {"value": float(value), "low": float(low), "high": float(high), "n": int(count), "method": method}
        if count else statistics.undefined("no vote on a pair of completions")
        for value, low, high, count in zip(found.reliability, found.low, found.high, n, strict=True)
    ]  # fmt: skip


def _consensus(columns: Columns, model: DawidSkene | None, eta: list[Figure]) -> dict[str, Any]:
    if model is None:
        return {"annotators": columns.annotators}
    return {
        "annotators": columns.annotators,
        "priors": model.priors.tolist(),
        "confusion": {
            str(pk): matrix.tolist() for pk, matrix in zip(columns.annotators, model.confusion, strict=False)
        },
        "reliability": {str(pk): figure["value"] for pk, figure in zip(columns.annotators, eta, strict=True)},
    }
