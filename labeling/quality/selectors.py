"""How good a project's judgements are."""

from collections import Counter
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Max

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Task
from labeling.projects.models import Project
from labeling.projects.services import pseudonym_of
from labeling.quality import statistics

MAX_JUDGEMENTS = 20_000
SHAPE = 3  # of the figures: raised when it changes, for the cache outlives the program
_Values = dict[int, dict[str, list[Any]]]  # task -> completion -> what each annotator said of it
CONSENSUS = "majority of the other annotators on each pair of completions; a tie is an answer; split pairs left out"


def _standing(project: Project) -> Any:
    return Judgement.objects.filter(project=project, superseded_by=None, task__purpose__in=Task.COLLECTED)


def project_agreement(project: Project) -> dict[str, Any]:
    """Agreement, and each annotator's reliability and position bias, over the newest 20,000 standing judgements.

    `n_judgements_all` says how many there are, `limited_to` the cap where it took effect. Late (surplus) answers
    count: they were judged just as blindly. Agreement is given over all annotators and, in
    `agreement_of_people`, over people alone, since a simulated annotator agrees with itself too well. Two queries.
    """
    columns = ("task_id", "annotator_id", "annotator_kind", "ranking", "order_shown", "seconds")
    # Only these parts of the feedback: corrections can be long.
    parts = ("feedback__ratings", "feedback__acceptable")
    rows = list(_standing(project).order_by("-pk").values_list(*columns, *parts)[: MAX_JUDGEMENTS + 1])
    n_all = _standing(project).count() if len(rows) > MAX_JUDGEMENTS else len(rows)
    limited = len(rows) > MAX_JUDGEMENTS
    rows = rows[:MAX_JUDGEMENTS]

    tasks: dict[int, dict[int, Any]] = {}
    people_tasks: dict[int, dict[int, Any]] = {}
    by_annotator: dict[int, list[Any]] = {}
    kinds: dict[int, str] = {}
    said, said_by_people = _Said(), _Said()
    for task, annotator, kind, ranking, order, seconds, ratings, acceptable in rows:
        kinds[annotator] = kind
        said.add(task, ratings, acceptable)
        if kind == User.Kind.HUMAN:
            said_by_people.add(task, ratings, acceptable)
        by_annotator.setdefault(annotator, []).append((ranking, order, seconds))
        if ranking:
            tasks.setdefault(task, {})[annotator] = ranking
            if kind == User.Kind.HUMAN:
                people_tasks.setdefault(task, {})[annotator] = ranking

    votes = [statistics.pair_votes(rankings) for rankings in tasks.values() if len(rankings) > 1]
    others = statistics.agreement_with_others(votes)
    agreement = _agreement(votes) | said.agreement()
    agreement_of_people = agreement
    if set(kinds.values()) - {User.Kind.HUMAN}:
        people = [statistics.pair_votes(rankings) for rankings in people_tasks.values() if len(rankings) > 1]
        agreement_of_people = _agreement(people) | said_by_people.agreement()
    annotators = [
        {
            "annotator": pseudonym_of(project, User(pk=annotator)),
            "kind": kinds[annotator],
            "n": len(judged),
            "agreement_with_consensus": others.get(annotator)
            or statistics.undefined("nobody else judged the same tasks"),
            "reliability": None,
            "position_bias": statistics.position_bias((ranking, order) for ranking, order, _ in judged),
            "gold": None,
            "seconds_median": statistics.median_seconds(seconds for _, _, seconds in judged),
        }
        for annotator, judged in sorted(by_annotator.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return {
        "n_tasks": len({task for task, *_ in rows}),
        "n_tasks_judged_twice": len(votes),
        "n_judgements": len(rows),
        "n_judgements_all": n_all,
        "limited_to": MAX_JUDGEMENTS if limited else None,
        "n_annotators": len(by_annotator),
        "annotator_kinds": dict(Counter(kinds.values())),
        "agreement": agreement,
        "agreement_of_people": agreement_of_people,
        "position_bias": statistics.position_bias((row[3], row[4]) for row in rows),
        "seconds_median": statistics.median_seconds(row[5] for row in rows),
        "annotators": annotators,
        "consensus_method": CONSENSUS,
    }


class _Said:
    """What was said of single completions: values by task, axis and completion."""

    def __init__(self) -> None:
        self.ratings: dict[str, _Values] = {}
        self.acceptable: _Values = {}

    def add(self, task: int, ratings: dict[str, dict[str, int]] | None, acceptable: dict[str, bool] | None) -> None:
        for completion, by_axis in (ratings or {}).items():
            for axis, value in by_axis.items():
                self.ratings.setdefault(axis, {}).setdefault(task, {}).setdefault(completion, []).append(value)
        for completion, value in (acceptable or {}).items():
            self.acceptable.setdefault(task, {}).setdefault(completion, []).append(value)

    def agreement(self) -> dict[str, statistics.Figure]:
        """A figure for each axis that two people gave for one completion."""
        figures = {
            f"krippendorff_alpha_interval:{axis}": statistics.krippendorff_alpha_interval(_units(values))
            for axis, values in sorted(self.ratings.items())
            if _judged_twice(values)
        }
        if _judged_twice(self.acceptable):
            alpha = statistics.krippendorff_alpha_nominal(_units(self.acceptable))
            figures["krippendorff_alpha_nominal:acceptable"] = alpha
        return figures


def _units(values: _Values) -> list[list[list[Any]]]:
    return [list(task.values()) for task in values.values()]


def _judged_twice(values: _Values) -> bool:
    return any(len(given) > 1 for task in values.values() for given in task.values())


def _agreement(votes: list[statistics.PairVotes]) -> dict[str, statistics.Figure]:
    units = [[list(unit.values()) for unit in task.values()] for task in votes]
    return {
        "pairwise_raw": statistics.pairwise_agreement(votes),
        # The first of a pair is the completion that was entered first.
        "krippendorff_alpha_nominal": statistics.krippendorff_alpha_nominal(units),
        "krippendorff_alpha_symmetric": statistics.krippendorff_alpha_nominal(units, swap=statistics.OTHER_WAY_ROUND),
    }


def cached_agreement(project: Project) -> dict[str, Any]:
    """`project_agreement` for pages that many people keep open: computed again when judgements came in.

    In a large project one more judgement changes no figure that can be seen, so there it waits for a hundred.
    """
    known = _standing(project).aggregate(top=Max("pk"), n=Count("pk"))
    grain = 100 if known["n"] > 5000 else 1
    key = f"quality:{SHAPE}:{project.pk}:{(known['top'] or 0) // grain}:{known['n'] // grain}"
    figures = cache.get(key)
    if figures is None:
        figures = project_agreement(project)
        cache.set(key, figures, 600)
    return figures


def annotators_by_pseudonym(project: Project) -> dict[str, User]:
    """Who is behind the pseudonyms: for the console, never for exports."""
    judged = Judgement.objects.filter(project=project).values("annotator").distinct()
    return {pseudonym_of(project, user): user for user in User.objects.filter(pk__in=judged)}
