"""The figures of a project's judgements, from their columns. One thing after another, each on arrays."""

from collections import Counter
from typing import Any

import numpy

from labeling.accounts.models import User
from labeling.projects.models import Project
from labeling.projects.services import pseudonym_of
from labeling.quality import statistics
from labeling.quality.columns import Columns, Said, Settled
from labeling.quality.statistics import Answers, Figure, Rankings, Votes
from labeling.quality.statistics import consensus as consensus_model
from labeling.quality.statistics.confusion import confusion_of, confusions_by_annotator
from labeling.quality.statistics.crowd_bt import crowd_bt_of
from labeling.quality.statistics.rankings import position_bias_of
from labeling.quality.statistics.reliability import NOBODY_ELSE, DawidSkene, shares_by_annotator, sides_with_others
from labeling.quality.statistics.votes import SWAPPED

SHAPE = 2  # raised when the figures change, for reports outlive the program
MOST_PAIRS = 50  # of annotators with a kappa
MOST_TAGS = 50
PARTS = 20  # of agreement over time
LEAST_TASKS_A_PART = 5
TIME_PARTS = 8  # of rankings by the time they took
LEAST_RANKINGS_A_PART = 20
BINS = 10  # of tasks by how far those who ranked them differ
MOST_CONFUSIONS = 200  # annotators, those with most judgements
NOTHING_SETTLED = "no vote on a pair that a reviewer settled"
CROWD_BT = (
    "Crowd-BT: the probability of voting for the better completion as all votes score them; interval from the curvature. "
    "With few votes a pair its level is rough and its order is what to trust"
)


def figures_of(
    project: Project, columns: Columns, tags: dict[str, numpy.ndarray], settled: Settled
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures as the API gives them, and the model behind the consensus, by user id.

    Late (surplus) answers count: they were judged just as blindly. Agreement is given over all annotators and, in
    `agreement_of_people`, over people alone, since a simulated annotator agrees with itself too well. What a reviewer
    settled is the truth that annotators' reliability is held against. It changes no agreement: that is of the votes.
    """
    names = [pseudonym_of(project, User(pk=pk)) for pk in columns.annotators]
    votes = Votes.drawn_from(columns.rankings)
    known = votes.settled_by(settled.rankings)
    model = consensus_model.fit_consensus(votes, known) if len(votes) else None
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
        "position_bias": position_bias_of(int((~numpy.isnan(columns.won)).sum()), numpy.nansum(columns.won), numpy.nansum(columns.chance)),
        "seconds_median": statistics.median_seconds(columns.seconds[~numpy.isnan(columns.seconds)].tolist()),
        "agreement_by_time": _by_time(columns, votes),
        "disagreement": _disagreement(columns, votes, settled),
        "adjudication": _adjudication(votes, known, settled),
        "annotators": [],
        "consensus_method": consensus_model.METHOD,
    } | _confusion(columns, votes, model)
    eta, figures["annotators"] = _annotators(columns, votes, names, model, known)
    return figures, _consensus(columns, model, eta)


def nothing_yet(reason: str) -> dict[str, Any]:
    """What is shown of a large project before its first report: the same keys, each figure with why it is missing."""
    why = statistics.undefined(reason)
    agreement = dict.fromkeys(("pairwise_raw", "krippendorff_alpha_nominal", "krippendorff_alpha_symmetric"), why)
    confusion = {"better": {"same": why, "other": why, "tie": why}, "tie": {"better": why, "tie": why}}
    return {
        "n_tasks": 0, "n_tasks_judged_twice": 0, "n_judgements": 0, "n_annotators": 0, "n_votes": 0,
        "judgements_a_task": None, "annotator_kinds": {}, "agreement": agreement, "agreement_of_people": agreement,
        "agreement_by_tag": {}, "agreement_over_time": [], "position_bias": why, "seconds_median": None,
        "agreement_by_time": [], "disagreement": {"open": why, "histogram": []},
        "adjudication": {"outcomes": {}, "by_day": [], "agreement": why},
        "confusion": confusion, "confusion_of_people": confusion,
        "gold": {"all": why, "over_time": []}, "repeats": {"self_consistency": why, "position_bias": why},
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


def _by_time(columns: Columns, votes: Votes) -> list[dict[str, Any]]:
    """Equal parts of the rankings by people (of all, where nobody is a person), quickest first."""
    if not len(votes):
        return []
    right, counted = (numpy.bincount(votes.ranking, column, len(columns.rankings)) for column in sides_with_others(votes))
    seconds = columns.seconds[columns.judgement]
    wanted = (counted > 0) & ~numpy.isnan(seconds)
    if columns.is_person.any():
        wanted &= columns.is_person[columns.rankings.annotator]
    rankings = numpy.flatnonzero(wanted)
    rankings = rankings[numpy.argsort(seconds[rankings], kind="stable")]
    n_parts = min(TIME_PARTS, len(rankings) // LEAST_RANKINGS_A_PART)
    parts = []
    for part in numpy.array_split(rankings, n_parts) if n_parts else []:
        _, task = numpy.unique(columns.rankings.task[part], return_inverse=True)
        shares = (numpy.bincount(task, column[part]) for column in (right, counted))
        parts.append(
            {
                "seconds_from": float(seconds[part[0]]), "seconds_to": float(seconds[part[-1]]),
                "seconds_median": float(numpy.median(seconds[part])), "n_rankings": len(part),
                "agreement_with_consensus": statistics.clustered_proportion(*shares),
            }
        )  # fmt: skip
    return parts


def _disagreement(columns: Columns, votes: Votes, settled: Settled) -> dict[str, Any]:
    """Of tasks by the share of comparisons of two rankings that differ; `open` is of those that nobody settled."""
    tally = votes.tallies()
    size, n_tasks = tally.sum(axis=1), len(columns.tasks)
    compared = numpy.bincount(votes.task, size * (size - 1) / 2, n_tasks)
    differing = compared - numpy.bincount(votes.task, (tally * (tally - 1)).sum(axis=1) / 2, n_tasks)
    is_open = (compared > 0) & ~settled.is_settled
    where = numpy.minimum(BINS - 1, (BINS * differing / numpy.maximum(compared, 1) + 1e-9).astype(int))
    n_open, n_settled = (
        numpy.bincount(where[rows], minlength=BINS).tolist() for rows in (is_open, (compared > 0) & settled.is_settled)
    )
    histogram = [
        {"low": index / BINS, "high": (index + 1) / BINS, "n_open": n_open[index], "n_settled": n_settled[index]}
        for index in range(BINS)
    ]
    figure = statistics.clustered_proportion(differing[is_open], compared[is_open])
    return {"open": figure, "histogram": histogram if compared.any() else []}


def _adjudication(votes: Votes, known: numpy.ndarray | None, settled: Settled) -> dict[str, Any]:
    """How much was settled, and how often the votes on it had said so."""
    agreement = statistics.undefined(NOTHING_SETTLED)
    if known is not None:
        said, counted = _settled_votes(votes, known)
        task = votes.task[votes.pair]
        agreement = statistics.clustered_proportion(numpy.bincount(task, said), numpy.bincount(task, counted))
    by_day = [{"day": day, "n": n} for day, n in settled.days]
    return {"outcomes": settled.outcomes, "by_day": by_day, "agreement": agreement}


def _settled_votes(votes: Votes, known: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Of each vote whether it says what was settled, and whether its pair was settled at all."""
    of_vote = known[votes.pair]
    return of_vote == votes.value, of_vote >= 0


def _confusion(columns: Columns, votes: Votes, model: DawidSkene | None) -> dict[str, Any]:
    """Over all annotators, and over people alone, by the one model of all votes."""
    posteriors = model.posteriors if model else numpy.zeros((0, 3))
    of_all = of_people = confusion_of(votes, posteriors)
    if not columns.is_person.all() and len(votes):
        by_people = columns.is_person[votes.annotator]
        has_votes = numpy.bincount(votes.pair[by_people], minlength=votes.n_pairs) > 0
        of_people = confusion_of(votes.only(by_people), posteriors[has_votes])
    return {"confusion": of_all, "confusion_of_people": of_people}


def _annotators(
    columns: Columns, votes: Votes, names: list[str], model: DawidSkene | None, known: numpy.ndarray | None
) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Reliability by number of the annotator, and the rows of all, those with most judgements first."""
    n = len(names)
    no_vote = statistics.undefined("no vote on a pair of completions")
    n_judgements = numpy.bincount(columns.annotator, minlength=n)
    shown = ~numpy.isnan(columns.won)
    by_shown = columns.rankings.annotator[shown]
    n_shown, won, chance = (
        numpy.bincount(by_shown, weights, n) for weights in (None, columns.won[shown], columns.chance[shown])
    )
    with_others, accuracy = [statistics.undefined(NOBODY_ELSE)] * n, [no_vote] * n
    eta = [no_vote] * n
    with_reviewers, confusions = [statistics.undefined(NOTHING_SETTLED)] * n, []
    if model is not None:
        right, counted = sides_with_others(votes)
        with_others = _padded(shares_by_annotator(votes, right, counted, NOBODY_ELSE), with_others)
        accuracy = _padded(consensus_model.accuracies(votes, model), accuracy)
        eta = _padded(_crowd_bt(votes, known), eta)
        confusions = confusions_by_annotator(votes, model.posteriors)
        if known is not None:
            said, settled = _settled_votes(votes, known)
            with_reviewers = _padded(shares_by_annotator(votes, said, settled, NOTHING_SETTLED), with_reviewers)
    order = numpy.argsort(columns.annotator, kind="stable")
    ends = numpy.searchsorted(columns.annotator[order], numpy.arange(n + 1))
    rows = []
    for place, by in enumerate(sorted(range(n), key=lambda by: (-n_judgements[by], columns.annotators[by]))):
        seconds = columns.seconds[order[ends[by] : ends[by + 1]]]
        has_votes = model is not None and by < len(model.counts)
        rows.append(
            {
                "annotator": names[by], "kind": columns.kinds[by], "n": int(n_judgements[by]),
                "agreement_with_consensus": with_others[by], "reliability": accuracy[by], "crowd_bt": eta[by],
                "confusion": model.counts[by].round(2).tolist() if has_votes else None,  # type: ignore[union-attr]
                "confusion_shares": confusions[by] if by < len(confusions) and place < MOST_CONFUSIONS else None,
                "agreement_with_adjudication": with_reviewers[by],
                "position_bias": position_bias_of(int(n_shown[by]), won[by], chance[by]),
                "gold": None, "repeats": None,
                "seconds_median": statistics.median_seconds(seconds[~numpy.isnan(seconds)].tolist()),
            }
        )  # fmt: skip
    return eta, rows


def no_row(name: str, kind: str) -> dict[str, Any]:
    """Of somebody without a judgement that counts."""
    why = statistics.undefined("no judgement that counts")
    return {
        "annotator": name, "kind": kind, "n": 0, "agreement_with_consensus": why, "reliability": why, "crowd_bt": why,
        "confusion": None, "confusion_shares": None, "agreement_with_adjudication": why, "position_bias": why,
        "gold": None, "repeats": None, "seconds_median": None,
    }  # fmt: skip


def _padded(figures: list[Figure], usual: list[Figure]) -> list[Figure]:
    return figures + usual[len(figures) :]


def _crowd_bt(votes: Votes, known: numpy.ndarray | None) -> list[Figure]:
    """The items are completions, so those in several tasks link them."""
    found = crowd_bt_of(votes, known)
    n = numpy.bincount(votes.annotator, minlength=votes.n_annotators)
    method = CROWD_BT if found.converged else f"{CROWD_BT}. The search had not ended after {found.n_iterations} steps"
    return [
        {"value": float(value), "low": float(low), "high": float(high), "n": int(count), "method": method}
        if count else statistics.undefined("no vote on a pair of completions")
        for value, low, high, count in zip(found.reliability, found.low, found.high, n, strict=True)
    ]  # fmt: skip


def _consensus(columns: Columns, model: DawidSkene | None, eta: list[Figure]) -> dict[str, Any]:
    if model is None:
        return {"annotators": list(columns.annotators)}
    return {
        "annotators": list(columns.annotators),
        "priors": model.priors.tolist(),
        "confusion": {
            str(pk): matrix.tolist() for pk, matrix in zip(columns.annotators, model.confusion, strict=False)
        },
        "reliability": {str(pk): figure["value"] for pk, figure in zip(columns.annotators, eta, strict=True)},
    }
