"""What a project's front page shows: where the loop stands, what waits for someone, how fast judgements come.

It looks at every app at once, so it lives in the uppermost one. Each function takes a fixed number of queries.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil, sqrt
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, TruncDay, TruncHour
from django.urls import reverse
from django.utils.timezone import now

from labeling.accounts.roles import ANNOTATING, STEERING, TRAINING
from labeling.annotation.models import Judgement, Lease, Slot, Task
from labeling.annotation.selectors import QueueFigures, n_open_reports, prompts_for_data
from labeling.preferences.models import Snapshot
from labeling.projects.feedback import least_completions
from labeling.projects.models import Completion, Project, Prompt
from labeling.web.remembering import remembered, total
from labeling.webhooks.selectors import webhooks_switched_off
from training.loop.models import Iteration
from training.registry.models import ModelVersion
from training.runs.models import Run

OVER = (Iteration.Stage.DONE, Iteration.Stage.FAILED)
# Below this many a snapshot teaches little; it is a suggestion, not a rule.
ENOUGH_JUDGEMENTS = 30


@dataclass(frozen=True)
class Station:
    """One word of the loop strip."""

    name: str
    value: str
    url: str
    note: str = ""
    waits: bool = False
    is_empty: bool = False


@dataclass
class LoopState:
    """Everything the strip and the advice are drawn from."""

    project: Project
    n_prompts: int = 0
    n_completions: int = 0
    n_tasks: int = 0
    n_tasks_done: int = 0
    n_compare_open: int = 0
    n_judgements: int = 0
    snapshot: Snapshot | None = None
    reward: ModelVersion | None = None
    policy: ModelVersion | None = None
    iteration: Iteration | None = None
    run: Run | None = None
    stations: list[Station] = field(default_factory=list)


def loop_state(project: Project) -> LoopState:
    """Six small queries; the counts of large projects are some seconds old."""
    state = LoopState(project, **remembered(f"loop-counts:{project.pk}", lambda: _counts(project), n=total))
    state.snapshot = Snapshot.objects.filter(project=project).order_by("-number").defer("manifest").first()
    models = ModelVersion.objects.filter(project=project).exclude(stage=ModelVersion.Stage.ARCHIVED).order_by("-pk")
    rewards, policies = (models.filter(kind=kind) for kind in (ModelVersion.Kind.REWARD, ModelVersion.Kind.POLICY))
    newest = Q(pk=Subquery(rewards.values("pk")[:1])) | Q(pk=Subquery(policies.values("pk")[:1]))
    by_kind = {model.kind: model for model in ModelVersion.objects.filter(newest)}
    state.reward, state.policy = by_kind.get(ModelVersion.Kind.REWARD), by_kind.get(ModelVersion.Kind.POLICY)
    state.iteration = Iteration.objects.filter(project=project).order_by("-number").first()
    state.run = (
        Run.objects.filter(project=project, state__in=[Run.State.RUNNING, Run.State.QUEUED]).order_by("pk").first()
    )
    state.stations = _stations(state)
    return state


def _counts(project: Project) -> dict[str, int]:
    """Judgements are those that count for their task: neither surplus nor set aside, a revision once."""
    is_there = ~Q(state=Task.State.CLOSED)
    tasks = Task.objects.filter(project=project, purpose__in=Task.COLLECTED).aggregate(
        n_tasks=Count("pk", filter=is_there),
        n_tasks_done=Count("pk", filter=Q(state=Task.State.DONE)),
        n_compare_open=Count("pk", filter=Q(purpose=Task.Purpose.EVALUATION, state=Task.State.OPEN)),
        n_judgements=Coalesce(Sum("n_judged"), 0),
    )
    n_prompts, n_completions = Project.objects.values_list(
        _count(Prompt.objects.filter(project=project), "project"),
        _count(Completion.objects.filter(prompt__project=project), "prompt__project"),
    ).get(pk=project.pk)
    return {**tasks, "n_prompts": n_prompts, "n_completions": n_completions}


def _count(rows: QuerySet[Any], of: str) -> Coalesce:
    """How many rows, as part of another statement. `of` is what all of them have in common."""
    return Coalesce(Subquery(rows.order_by().values(of).annotate(n=Count("pk")).values("n")), 0)


def reward_figure(model: ModelVersion | None) -> dict[str, Any] | None:
    """The held-out accuracy of a reward model, or the cross-validated one."""
    metrics = model.metrics if model else {}
    for name in ("accuracy", "cv_accuracy", "rewards/accuracies"):
        if isinstance(metrics.get(name), dict) and metrics[name].get("value") is not None:
            return metrics[name]
    return None


def _stations(state: LoopState) -> list[Station]:
    slug = state.project.slug
    accuracy = reward_figure(state.reward)
    spread = (
        f"±{(accuracy['high'] - accuracy['low']) / 2:.2f}".replace("±0.", "±.")
        if accuracy and accuracy.get("low") is not None
        else ""
    )
    compares = state.n_compare_open > 0
    return [
        Station("prompts", f"{state.n_prompts:,}", reverse("projects:prompts", args=[slug]), is_empty=not state.n_prompts),
        Station(
            "completions", f"{state.n_completions:,}", reverse("projects:prompts", args=[slug]),
            waits=bool(state.n_prompts and not state.n_completions), is_empty=not state.n_completions,
        ),
        Station(
            "tasks", f"{state.n_tasks_done:,}/{state.n_tasks:,}", reverse("projects:tasks", args=[slug]),
            waits=bool(state.n_completions and not state.n_tasks), is_empty=not state.n_tasks,
        ),
        Station(
            "judgements", f"{state.n_judgements:,}", reverse("projects:quality", args=[slug]),
            waits=state.n_tasks_done < state.n_tasks, is_empty=not state.n_judgements,
        ),
        Station(
            "snapshot", f"#{state.snapshot.number}" if state.snapshot else "none",
            reverse("preferences:detail", args=[slug, state.snapshot.number])
            if state.snapshot else reverse("preferences:list", args=[slug]),
            is_empty=state.snapshot is None,
        ),
        Station(
            "reward", f"{accuracy['value']:.2f}" if accuracy else "made" if state.reward else "none",
            reverse("registry:detail", args=[slug, state.reward.pk]) if state.reward else reverse("registry:list", args=[slug]),
            note=spread, is_empty=state.reward is None,
        ),
        Station(
            "policy", f"v{state.policy.version}" if state.policy else "none",
            reverse("registry:detail", args=[slug, state.policy.pk]) if state.policy else reverse("registry:list", args=[slug]),
            note=state.policy.get_stage_display() if state.policy else "", is_empty=state.policy is None,
            waits=compares,
        ),
    ]  # fmt: skip


def loop_now(state: LoopState) -> Station | None:
    """The end of the strip: what the loop does or waits for at this moment."""
    slug = state.project.slug
    if state.project.state == Project.State.PAUSED:
        return Station("now", "paused", reverse("projects:settings", args=[slug]), waits=True)
    if state.run:
        share = f" {100 * state.run.progress:.0f} %" if state.run.state == Run.State.RUNNING else " waiting"
        return Station("now", f"{state.run.kind}{share}", reverse("runs:detail", args=[slug, state.run.pk]))
    if state.iteration and state.iteration.stage not in OVER:
        stage = state.iteration.stage
        words = {"collecting": "judgements wait for people", "comparing": "comparison waits for people"}
        return Station(
            "now",
            words.get(stage, state.iteration.get_stage_display()),
            reverse("loop:detail", args=[slug, state.iteration.number]),
            waits=stage in words,
        )
    return None


@dataclass(frozen=True)
class Advice:
    """One line of what needs someone, and the button that does it."""

    text: str
    action: str
    url: str
    roles: frozenset[str]


def needs_you(state: LoopState) -> list[Advice]:
    """What to do next, most urgent first, at most three. Eight queries."""
    project, slug = state.project, state.project.slug
    steer, train, judge = frozenset(STEERING), frozenset(TRAINING), frozenset(ANNOTATING)
    found: list[Advice] = []

    def say(text: str, action: str, url: str, roles: frozenset[str]) -> None:
        found.append(Advice(text, action, url, roles))

    week_ago = now() - timedelta(days=7)
    newest_run = Run.objects.filter(project=project, created_at__gte=week_ago).order_by("-pk").first()
    least = least_completions(project.form)
    without_task = _prompts_without_task(state, least)
    n_reported = n_open_reports(project)
    n_fresh = _n_fresh(state)
    untrained = (
        state.snapshot is not None
        and not Run.objects.filter(project=project, snapshot=state.snapshot).exclude(state=Run.State.FAILED).exists()
    )
    n_annotators = project.memberships.filter(role__in=["annotator", "reviewer"]).count()
    busy = state.iteration is not None and state.iteration.stage not in OVER

    if project.state == Project.State.PAUSED:
        say(
            "The project is paused: nobody is given a task.",
            "Resume it",
            reverse("projects:settings", args=[slug]),
            steer,
        )
    if newest_run and newest_run.state == Run.State.FAILED:
        say(
            f"Run {newest_run.pk} ({newest_run.kind}) failed: {newest_run.error.splitlines()[0][:120] if newest_run.error else 'no reason given'}",
            "Look at it", reverse("runs:detail", args=[slug, newest_run.pk]), train,
        )  # fmt: skip
    if state.iteration and state.iteration.stage == Iteration.Stage.FAILED:
        say(
            f"Iteration {state.iteration.number} stopped: {state.iteration.error[:120]}",
            "Look at it", reverse("loop:detail", args=[slug, state.iteration.number]), train,
        )  # fmt: skip
    if webhook := webhooks_switched_off(project).order_by("pk").first():
        say(
            f"The site switched a webhook off: {webhook.problem}.",
            "Look at it", reverse("projects:webhook", args=[slug, webhook.pk]), steer,
        )  # fmt: skip
    if n_reported:
        are = "prompt was" if n_reported == 1 else "prompts were"
        say(
            f"{n_reported:,} {are} reported by annotators.",
            "Look at it" if n_reported == 1 else "Look at them",
            reverse("projects:reports", args=[slug]),
            steer,
        )
    if state.n_compare_open:
        say(
            f"{state.n_compare_open:,} comparisons of the old and the new policy wait for a person.",
            "Judge them", reverse("annotation:bench", args=[slug]), judge,
        )  # fmt: skip
    if not state.n_prompts:
        say("There are no prompts yet.", "Import some", reverse("projects:import", args=[slug]), steer)
    elif without_task["ready"] and not busy:
        say(
            f"{without_task['ready']:,} prompts have {'completions but ' if least else ''}no task.",
            "Make tasks", reverse("projects:tasks", args=[slug]), steer,
        )  # fmt: skip
    elif without_task["bare"] and not busy:
        say(
            f"{without_task['bare']:,} prompts have {'fewer than two completions' if least == 2 else 'no completion'}.",
            "Sample some", reverse("runs:new", args=[slug]) + "?kind=sample", train,
        )  # fmt: skip
    all_judged = state.n_tasks and state.n_tasks_done == state.n_tasks
    if not busy and n_fresh and (all_judged or n_fresh >= ENOUGH_JUDGEMENTS):
        since = f"since snapshot #{state.snapshot.number}" if state.snapshot else "and nothing frozen yet"
        say(f"{n_fresh:,} judgements {since}.", "Freeze a snapshot", reverse("preferences:new", args=[slug]), train)
    if untrained and not busy:
        say(
            f"Snapshot #{state.snapshot.number} has no run yet.",
            "Train on it", reverse("runs:new", args=[slug]) + f"?kind=reward_head&snapshot={state.snapshot.pk}", train,
        )  # fmt: skip
    if (
        state.iteration
        and state.iteration.stage == Iteration.Stage.DONE
        and state.policy
        and state.policy.stage == ModelVersion.Stage.CANDIDATE
        and state.iteration.policy_after_id == state.policy.pk
    ):
        say(
            f"{state.policy.key} is compared and still a candidate.",
            "Decide", reverse("loop:detail", args=[slug, state.iteration.number]), train,
        )  # fmt: skip
    if state.n_tasks and not all_judged and not n_annotators:
        say(
            "Tasks are open, and nobody but leads may judge them.",
            "Add people",
            reverse("projects:people", args=[slug]),
            steer,
        )
    return found[:3]


def _prompts_without_task(state: LoopState, least: int) -> dict[str, int]:
    """`ready` have as many completions as a task needs, `bare` fewer."""
    found = (
        prompts_for_data(state.project)
        .filter(~Exists(Task.objects.filter(prompt=OuterRef("pk"))))
        .annotate(n=Count("completions"))
    )
    return remembered(
        f"prompts-without-task:{state.project.pk}:{least}",
        lambda: found.aggregate(ready=Count("pk", filter=Q(n__gte=least)), bare=Count("pk", filter=Q(n__lt=least))),
        n=state.n_prompts,
    )


def _n_fresh(state: LoopState) -> int:
    """Judgements of the data that came since the newest snapshot."""
    frozen_up_to = (state.snapshot.filters.get("up_to_judgement") or 0) if state.snapshot else 0
    fresh = Judgement.objects.current().filter(
        project=state.project, slot__isnull=False, task__purpose=Task.Purpose.PREFERENCE,
        pk__gt=frozen_up_to,
    ).exclude(slot__state=Slot.State.VOID)  # fmt: skip
    return remembered(f"fresh:{state.project.pk}:{frozen_up_to}", fresh.count, n=state.n_judgements)


@dataclass(frozen=True)
class Step:
    """One of the first steps of a new project."""

    text: str
    help: str
    url: str
    is_done: bool
    is_next: bool = False


def first_steps(state: LoopState) -> list[Step]:
    """From an empty project to its first judgement; nothing once there is one. One query."""
    if state.n_judgements:
        return []
    slug = state.project.slug
    needs = least_completions(state.project.form)
    what = "Import prompts and completions" if needs else "Import prompts"
    has_people = state.project.memberships.filter(role__in=["annotator", "reviewer"]).exists()
    is_open = bool(state.n_tasks) and has_people
    steps = [
        (what, "as JSON lines; completions can be sampled here too" if needs else "as JSON lines",
         "projects:import", state.n_prompts > 0 and (state.n_completions > 0 or not needs)),
        ("Make tasks", "what one person judges at a time", "projects:tasks", state.n_tasks > 0),
        ("Add people", "annotators see the bench alone", "projects:people", has_people),
        ("Open the bench", "and try the first task yourself" if is_open else "where tasks are judged", "annotation:bench", False),
    ]  # fmt: skip
    next_one = next(index for index, step in enumerate(steps) if not step[3])
    return [
        Step(text, says, reverse(view, args=[slug]), is_done, index == next_one)
        for index, (text, says, view, is_done) in enumerate(steps)
    ]


@dataclass(frozen=True)
class Pace:
    """Judgements over time, and when the queue would be empty at that pace."""

    points: list[tuple[str, int]]
    unit: str
    n_recent: int
    recent_hours: float
    days_left: tuple[float, float] | None


def pace(project: Project, queue: QueueFigures, at: datetime | None = None) -> Pace:
    """Judgements by hour of the last two days, or by day of the last 30 in older projects. Two queries.

    The forecast takes the last 24 hours (or the last 7 days if nothing came in then) as a Poisson count n, so the
    pace lies between n - 1.96 sqrt(n) and n + 1.96 sqrt(n) at 95 %; none below n = 5.
    """
    at = at or now()
    judged = Judgement.objects.filter(project=project, supersedes=None)
    first = judged.order_by("created_at").values_list("created_at", flat=True).first()
    if first is None:
        return Pace([], "hour", 0, 0.0, None)
    hourly = at - first < timedelta(days=2)
    step, trunc, n_steps = (timedelta(hours=1), TruncHour, 48) if hourly else (timedelta(days=1), TruncDay, 30)
    end = at.replace(minute=0, second=0, microsecond=0)
    end = end if hourly else end.replace(hour=0)
    start = end - step * (n_steps - 1)
    since_then = judged.filter(created_at__gte=min(start, at - timedelta(days=7))).annotate(time=trunc("created_at"))
    by_time = remembered(
        f"pace:{project.pk}:{hourly}",
        lambda: {time.isoformat(): n for time, n in since_then.values_list("time").annotate(n=Count("pk")).order_by()},
        n=total,
    )
    counts = {datetime.fromisoformat(time): n for time, n in by_time.items()}
    times = [start + step * index for index in range(n_steps)]
    shown_from = next((index for index, time in enumerate(times) if counts.get(time)), 0)
    points = [(time.isoformat(), counts.get(time, 0)) for time in times[max(0, min(shown_from - 1, n_steps - 6)) :]]

    def since(hours: float) -> tuple[int, float]:
        cut = at - timedelta(hours=hours)
        return sum(n for time, n in counts.items() if time > cut - step / 2), min(
            hours, max(1.0, (at - first).total_seconds() / 3600)
        )

    n_recent, hours = since(24)
    if not n_recent:
        n_recent, hours = since(168)
    left = queue.n_slots - queue.n_done
    days = None
    if n_recent >= 5 and left > 0:
        spread = 1.96 * sqrt(n_recent)
        days = tuple(left / (count * 24 / hours) for count in (n_recent + spread, max(1.0, n_recent - spread)))
    return Pace(points, "hour" if hourly else "day", n_recent, hours, days)


def days_in_words(days: tuple[float, float] | None) -> str:
    """`3 to 5 days`, `2 to 4 h`."""
    if days is None:
        return ""
    low, high = days
    if high < 2:
        low, high, unit = low * 24, high * 24, "h"
    else:
        unit = "days"
    low, high = max(1, round(low)), max(1, ceil(high))
    return f"{low:,} {unit}" if low == high else f"{low:,} to {high:,} {unit}"


def at_work(project: Project, at: datetime | None = None) -> list[dict[str, Any]]:
    """Who holds a task now, and since when. One query."""
    leases = (
        Lease.objects.filter(task__project=project, state=Lease.State.OPEN, expires_at__gt=at or now())
        .select_related("annotator")
        .order_by("created_at")[:200]
    )
    people: dict[int, dict[str, Any]] = {}
    for lease in leases:
        person = people.setdefault(lease.annotator_id, {"user": lease.annotator, "since": lease.created_at, "n": 0})
        person["n"] += 1
    return list(people.values())
