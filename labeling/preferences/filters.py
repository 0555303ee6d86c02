"""What goes into a snapshot, and what a trainer sees of it: the filters and the policy, checked, and as querysets.

`FILTERS` and `POLICY` are the one place that names their parts. Forms, documentation and the API are held against them.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from django.db.models import BooleanField, Exists, Func, OuterRef, QuerySet
from django.utils.dateparse import parse_date, parse_datetime

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Slot, Task, TaskCompletion
from labeling.preferences.errors import BadFilter
from labeling.preferences.models import Withdrawal
from labeling.projects.models import Membership, Project
from labeling.projects.quality_settings import quality_of
from labeling.projects.services import pseudonym_of
from labeling.quality.gold import gold_results
from labeling.quality.models import Adjudication
from labeling.quality.services import figures_and_annotators

Filters = dict[str, Any]
Policy = dict[str, Any]
MOST_NAMES, LONGEST_NAME = 1000, 200
HIGHEST_ID = 2**63 - 1
PURPOSES = {purpose.value: str(purpose.label) for purpose in Task.COLLECTED}
KINDS = {kind.value: str(kind.label) for kind in User.Kind}
STRENGTHS = ("1", "2", "3")


@dataclass(frozen=True)
class Part:
    """One filter, or one part of a policy.

    `says` is what it does, in words for the form and the documentation; `choices` are the values it can take, each in
    words. `check` gives the value as it is kept, so that what means the same is the same; it raises ValueError with
    what the value must be. `is_set` says that freezing fills it in where it was left out.
    """

    default: Any
    says: str
    check: Callable[[Any], Any]
    choices: dict[str, str] | None = None
    is_set: bool = False


# --- how values are checked -----------------------------------------------------------------------
def _names(known: Collection[str] | None = None, *, may_be_empty: bool = False) -> Callable[[Any], list[str]]:
    """A list of texts, sorted and each once; null is none."""
    words = "must be a list from: " + ", ".join(known) if known else f"must be a list of at most {MOST_NAMES:,} texts"

    def check(value: Any) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > MOST_NAMES:
            raise ValueError(words)
        for name in value:
            if not isinstance(name, str) or len(name) > LONGEST_NAME or "\x00" in name or not (name or may_be_empty):
                raise ValueError(words if known else f"{words}, each of 1 to {LONGEST_NAME} characters")
            if known is not None and name not in known:
                raise ValueError(words)
        return sorted(set(value))

    return check


def _numbers(value: Any) -> list[int]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MOST_NAMES or not all(_is_whole(item, 2**31 - 1) for item in value):
        raise ValueError("must be a list of whole numbers")
    return sorted(set(value))


def _whole_or_none(value: Any) -> int | None:
    if value is not None and not _is_whole(value, HIGHEST_ID):
        raise ValueError("must be a whole number")
    return value


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _share_or_none(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return float(value)


def _moment_or_none(value: Any) -> str | None:
    """ISO 8601 in UTC; without an offset it is UTC, and a day alone is its beginning."""
    if value is None or value == "":
        return None
    words = "must be a time such as 2026-11-21T08:00:00Z, or a day such as 2026-11-21"
    try:
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, date):
            found = datetime(value.year, value.month, value.day)
        elif not isinstance(value, str):
            raise ValueError(words)
        elif (day := parse_date(value)) is not None:
            found = datetime(day.year, day.month, day.day)
        else:
            found = parse_datetime(value)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, AttributeError, OverflowError):  # not a time, not a day, no such day, before the year 1
        raise ValueError(words) from None
    return found.isoformat().replace("+00:00", "Z")


def _one_of(*known: str, renamed: dict[str, str] | None = None) -> Callable[[Any], str]:
    words = "must be " + ", ".join(known[:-1]) + f" or {known[-1]}"

    def check(value: Any) -> str:
        value = (renamed or {}).get(value, value) if isinstance(value, str) else value
        if not isinstance(value, str) or value not in known:
            raise ValueError(words)
        return value

    return check


def _margins(value: Any) -> dict[str, float]:
    numbers = value.values() if isinstance(value, dict) else [None]
    if not all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) for number in numbers
    ) or not set(value) <= set(STRENGTHS):
        raise ValueError('must map strengths "1", "2", "3" to numbers')
    return value


def _choice(default: str, says: str, choices: dict[str, str], renamed: dict[str, str] | None = None) -> Part:
    return Part(default, says, _one_of(*choices, renamed=renamed), choices)


# --- the tables -----------------------------------------------------------------------------------
# Of lists, an empty one (or null) filters nothing.
FILTERS: dict[str, Part] = {
    "iterations": Part([], "tasks of these iterations", _numbers),
    "purposes": Part(["preference"], "what the tasks were made for", _names(PURPOSES), PURPOSES),
    "tags": Part([], "prompts with any of these tags", _names()),
    "sources": Part([], "prompts from any of these sources; an empty text: from none named", _names(may_be_empty=True)),
    "licences": Part([], "prompts under any of these licences; an empty text: unknown", _names(may_be_empty=True)),
    "annotators": Part([], "judgements by these annotators, by their pseudonyms", _names()),
    "annotator_kinds": Part([], "judgements by these kinds of annotators", _names(KINDS), KINDS),
    "since": Part(None, "judgements made then or later", _moment_or_none),
    "until": Part(None, "judgements made before then", _moment_or_none),
    "min_agreement": Part(
        None, "pairs on which at least this share of the votes agree, and those that a reviewer settled",
        _share_or_none,
    ),
    "min_reliability": Part(
        None, "judgements by annotators of at least this reliability in the newest figures of quality", _share_or_none
    ),
    "gold": _choice(
        "any", "judgements by annotators as gold tasks show them",
        {"any": "all", "passed": "only those whose gold answers reach the project’s bar"},
    ),
    "without_flags": Part(
        [], "what no annotator flagged so: a flagged completion takes no part in pairs, nor in rows for SFT and KTO",
        _names(),
    ),
    "consent": _choice(
        "not_withdrawn", "judgements by annotators as they agreed to training",
        {"not_withdrawn": "all who have not withdrawn", "given": "only those who said yes"},
    ),
    "up_to_judgement": Part(None, "judgements up to this id", _whole_or_none, is_set=True),
    "up_to_adjudication": Part(None, "what reviewers settled up to this id", _whole_or_none, is_set=True),
    "left_out_annotators": Part(
        None, "whom min_reliability and gold leave out, by pseudonym: the figures move, what is frozen doesn't",
        lambda value: None if value is None else _names()(value), is_set=True,
    ),
}  # fmt: skip

POLICY: dict[str, Part] = {
    "ties": _choice(
        "drop", "pairs that are ties",
        {
            "drop": "left out",
            "soft_label": "kept, with a soft label of one half",
            "both": "a row each way round, each of half the weight, for trainers that know no soft labels",
        },
        renamed={"keep": "soft_label"},  # its name in policies that were kept before there was `both`
    ),
    "votes": _choice(
        "majority", "several votes on a pair",
        {
            "majority": "one row: what most say",
            "each": "a row for each vote, which share the weight",
            "consensus": "one row: what is most probable by the annotators’ reliability, with that as its soft label",
        },
    ),
    "pairs": _choice(
        "all", "which pairs of a ranking", {"all": "all of them", "extremes": "only a best against a worst"}
    ),
    "margins": Part({}, 'strength "1", "2" or "3" of a pair to its margin; empty: none', _margins),
    "corrections": _choice(
        "include", "what annotators edited",
        {"include": "the edit over what it corrects, and over all its author ranked below that", "leave_out": "left out"},
    ),
    "adjudications": _choice(
        "use", "tasks that a reviewer settled",
        {"use": "the reviewer’s ranking decides, and unfit tasks are left out", "ignore": "the votes decide everywhere"},
    ),
}  # fmt: skip
DEFAULT_FILTERS: Filters = {name: part.default for name, part in FILTERS.items()}
DEFAULT_POLICY: Policy = {name: part.default for name, part in POLICY.items()}


def complete_filters(filters: Filters | None) -> Filters:
    """Fill in defaults, each value in the one form it is kept in; raises BadFilter naming what is wrong."""
    return _complete(filters, FILTERS, "is not a filter")


def complete_policy(policy: Policy | None) -> Policy:
    """Fill in defaults, each value in the one form it is kept in; raises BadFilter naming what is wrong."""
    return _complete(policy, POLICY, "is not part of a policy")


def _complete(given: dict[str, Any] | None, parts: dict[str, Part], stranger: str) -> dict[str, Any]:
    given = given or {}
    wrong = {str(name): stranger for name in given.keys() - parts.keys()}
    full = {}
    for name, part in parts.items():
        try:
            full[name] = part.check(given.get(name, part.default))
        except ValueError as error:
            wrong[name] = str(error)
    if wrong:
        raise BadFilter(wrong)
    return full


def in_words(value: Any, choices: dict[str, str] | None = None) -> str:
    """The value of a part, for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {number:g}" for key, number in sorted(value.items())) or "none"
    if isinstance(value, list):
        return ", ".join((choices or {}).get(item) or str(item) or "unknown" for item in value) or "all"
    return "none" if value is None else (choices or {}).get(value) or str(value)


# --- what is chosen -------------------------------------------------------------------------------
class _HasAny(Func):
    """Whether a column of JSON lists of texts holds one of these. Exactly: as texts, not as a piece of the JSON."""

    output_field = BooleanField()
    arity = 1

    def __init__(self, column: str, texts: Collection[str]) -> None:
        super().__init__(column)
        self.texts = list(texts)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        column, params = compiler.compile(self.source_expressions[0])
        marks = ", ".join(["%s"] * len(self.texts))
        return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value IN ({marks}))", [*params, *self.texts]

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        column, params = compiler.compile(self.source_expressions[0])
        return f"({column} ?| %s)", [*params, self.texts]


def judgements_chosen(project: Project, filters: Filters, policy: Policy) -> QuerySet[Judgement]:
    """Standing judgements (not superseded, surplus or set aside) that pass the snapshot's filters.

    Those of people who withdrew, on prompts that were removed and on texts that such people wrote are left out always;
    those on tasks that a reviewer found unfit where the policy uses what reviewers settled. Raises BadFilter for an
    annotator whom the project doesn't know.
    """
    found = _current(filters["up_to_judgement"]).filter(project=project, slot__isnull=False)
    found = found.exclude(slot__state=Slot.State.VOID)
    found = found.filter(task__purpose__in=filters["purposes"] or list(PURPOSES))
    if filters["iterations"]:
        found = found.filter(task__iteration__in=filters["iterations"])
    if filters["sources"]:
        found = found.filter(task__prompt__source__in=filters["sources"])
    if filters["licences"]:
        found = found.filter(task__prompt__licence__in=filters["licences"])
    if filters["tags"]:
        found = found.filter(_HasAny("task__prompt__tags", filters["tags"]))
    if filters["annotator_kinds"]:
        found = found.filter(annotator_kind__in=filters["annotator_kinds"])
    if filters["since"]:
        found = found.filter(created_at__gte=filters["since"])
    if filters["until"]:
        found = found.filter(created_at__lt=filters["until"])
    found = _by_annotators(found, project, filters)
    found = _without_withdrawn(found, project)
    if filters["consent"] == "given":
        given = Membership.objects.filter(project=project, consent=Membership.Consent.GIVEN)
        found = found.filter(annotator__in=given.values("user"))
    if policy["adjudications"] == "use":
        found = found.filter(~Exists(_found_unfit(project, filters).filter(task=OuterRef("task"))))
    return found


def _current(bound: int | None) -> QuerySet[Judgement]:
    """Those that no newer one supersedes, as they stood at the newest judgement that is taken in."""
    if bound is None:
        return Judgement.objects.current()
    newer = Judgement.objects.filter(supersedes=OuterRef("pk"), pk__lte=bound)
    return Judgement.objects.filter(~Exists(newer), pk__lte=bound)


def _by_annotators(found: QuerySet[Judgement], project: Project, filters: Filters) -> QuerySet[Judgement]:
    left_out = filters["left_out_annotators"]
    if left_out is None:
        left_out = [row["annotator"] for row in left_out_by_figures(project, filters)]
    if not filters["annotators"] and not left_out:
        return found
    known = {pseudonym_of(project, User(pk=pk)): pk for pk in annotators_of(project)}
    if strangers := sorted(set(filters["annotators"]) - known.keys()):
        raise BadFilter({"annotators": f"{strangers[0]!r} has judged nothing in this project"})
    if filters["annotators"]:
        found = found.filter(annotator__in=[known[name] for name in filters["annotators"]])
    return found.exclude(annotator__in=[known[name] for name in left_out if name in known])


def _without_withdrawn(found: QuerySet[Judgement], project: Project) -> QuerySet[Judgement]:
    """Each of these is looked up once, not for every judgement."""
    standing = Withdrawal.objects.filter(project=project, undone_at=None)
    people = standing.filter(annotator__isnull=False).values("annotator")
    over_their_texts = TaskCompletion.objects.filter(completion__author__in=people).values("task")
    removed = standing.filter(prompt__isnull=False).values("prompt")
    return found.exclude(annotator__in=people).exclude(task__in=over_their_texts).exclude(task__prompt__in=removed)


def annotators_of(project: Project) -> list[int]:
    """Ids of all who have judged something in the project."""
    judged = Judgement.objects.filter(project=project, annotator=OuterRef("pk"))
    return list(User.objects.filter(Exists(judged)).order_by("pk").values_list("pk", flat=True))


def left_out_by_figures(project: Project, filters: Filters) -> list[dict[str, Any]]:
    """Whom `min_reliability` and `gold` leave out as the figures are now: pseudonym, which filter, the figure, its n.

    Somebody of whom there is no figure is left out: nothing says that they reach the bar. Raises BadFilter where the
    project's figures are still being computed.
    """
    wants_reliability, wants_gold = filters["min_reliability"] is not None, filters["gold"] == "passed"
    if not wants_reliability and not wants_gold:
        return []
    names = {pk: pseudonym_of(project, User(pk=pk)) for pk in annotators_of(project)}
    rows = []
    if wants_reliability:
        figures = figures_and_annotators(project)[0]
        if names and figures["computed_at"] is None:
            raise BadFilter({"min_reliability": "needs figures of quality, which are still being computed: try again soon"})
        known = {row["annotator"]: row["reliability"] for row in figures["annotators"]}
        for name in names.values():
            figure = known.get(name) or {"value": None, "n": 0}
            if figure["value"] is None or figure["value"] < filters["min_reliability"]:
                rows.append({"annotator": name, "by": "min_reliability", "value": figure["value"], "n": figure["n"]})
    if wants_gold:
        settings = quality_of(project.quality)
        results = gold_results(project).by_annotator
        for pk, name in names.items():
            figure = results[pk]["window"] if pk in results else {"value": None, "n": 0}
            if figure["n"] < settings["gold_least"] or figure["value"] < settings["gold_bound"]:
                rows.append({"annotator": name, "by": "gold", "value": figure["value"], "n": figure["n"]})
    return sorted(rows, key=lambda row: (row["annotator"], row["by"]))


# --- what reviewers settled -----------------------------------------------------------------------
def adjudications_chosen(project: Project, filters: Filters) -> QuerySet[Adjudication]:
    """Rankings that reviewers settled, as they stood at the newest adjudication that the filters take in."""
    return _standing(project, filters).filter(outcome=Adjudication.Outcome.RANKING).exclude(ranking=[])


def unfit_tasks(project: Project, filters: Filters, policy: Policy) -> QuerySet[Adjudication]:
    """What found tasks unfit that would be in the snapshot otherwise, one each."""
    if policy["adjudications"] != "use":
        return Adjudication.objects.none()
    others = judgements_chosen(project, filters, {**policy, "adjudications": "ignore"})
    return _found_unfit(project, filters).filter(task__in=others.values("task"))


def n_left_out_as_unfit(project: Project, filters: Filters, policy: Policy) -> int:
    """How many tasks would be in the snapshot, had no reviewer found them unfit."""
    return unfit_tasks(project, filters, policy).count()


def _found_unfit(project: Project, filters: Filters) -> QuerySet[Adjudication]:
    return _standing(project, filters).filter(outcome=Adjudication.Outcome.UNFIT)


def _standing(project: Project, filters: Filters) -> QuerySet[Adjudication]:
    found, bound = Adjudication.objects.filter(project=project), filters["up_to_adjudication"]
    if bound is None:  # nothing is being frozen yet
        return found.filter(superseded_by=None)
    return found.filter(pk__lte=bound).exclude(superseded_by__pk__lte=bound)
