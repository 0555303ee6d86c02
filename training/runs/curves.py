"""The numbers of a run as curves: which there are, what they are called, how they are drawn together."""

from typing import Any

from django.db.models import F, Func, IntegerField, Max, Q, QuerySet

from training.runs.models import Run, RunEvent

MAX_POINTS = 1500
# Not about learning: clocks and counters that trainers log along with the rest.
LEFT_OUT = ("runtime", "per_second", "num_tokens", "num_input_tokens_seen", "epoch", "total_flos", "train_loss", "step_time", "episode")


def metric_events(run: Run) -> QuerySet[RunEvent]:
    return RunEvent.objects.filter(run=run, type="metric")


def metric_rows(run: Run, *, after: int = 0, most: int = MAX_POINTS) -> list[dict[str, Any]]:
    """Metric events after event number `after` as `{"n", "step", "metrics"}`, oldest first.

    Of a long run every k-th is taken, so that some `most` are left, and every evaluation. Two queries.
    """
    events = metric_events(run).filter(number__gt=after)
    top = events.aggregate(top=Max("number"))["top"] or 0
    every = max(1, -(-(top - after) // most))
    if every > 1:
        rest = Func(F("number"), every, function="MOD", output_field=IntegerField())
        events = events.annotate(rest=rest).filter(
            Q(rest=0) | Q(payload__metrics__has_key="eval_loss") | Q(number__gt=top - 5)
        )
    return [
        {"n": number, "step": step or 0, "metrics": wanted(payload.get("metrics") or {})}
        for number, step, payload in events.order_by("number").values_list("number", "step", "payload")
    ]


def wanted(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not any(part in name for part in LEFT_OUT)
    }
