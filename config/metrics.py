"""What Prometheus scrapes: queues and their age, so that a stuck worker or an empty bench shows."""

import hmac

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse
from django.utils.timezone import now
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from labeling.annotation.models import Lease, Slot
from training.loop.models import Iteration
from training.runs.models import Run


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For staff, and for whoever sends `Authorization: Bearer` with PREFLOOP_METRICS_TOKEN."""
    if not (request.user.is_staff or _has_token(request)):
        raise PermissionDenied
    return HttpResponse(generate_latest(_registry()), content_type=CONTENT_TYPE_LATEST)


def _has_token(request: HttpRequest) -> bool:
    sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(sent.encode(), settings.METRICS_TOKEN.encode())


def _registry() -> CollectorRegistry:
    at, registry = now(), CollectorRegistry()
    by_state = {
        "prefloop_slots": ("Judgements wanted, by state of their slot", Slot.objects.all(), Slot.State),
        "prefloop_runs": ("Runs, by state", Run.objects.all(), Run.State),
    }
    for name, (text, rows, states) in by_state.items():
        gauge = Gauge(name, text, ["state"], registry=registry)
        counts = dict(rows.values_list("state").annotate(n=Count("pk")))
        for state in states.values:
            gauge.labels(state).set(counts.get(state, 0))
    overdue = Lease.objects.filter(state=Lease.State.OPEN, expires_at__lt=at).count()
    Gauge("prefloop_leases_overdue", "Open leases past their end", registry=registry).set(overdue)
    over = [Iteration.Stage.DONE, Iteration.Stage.FAILED]
    under_way = Iteration.objects.exclude(stage__in=over).count()
    Gauge("prefloop_iterations_under_way", "Iterations that are not over", registry=registry).set(under_way)
    oldest = Run.objects.filter(state=Run.State.QUEUED).aggregate(at=Min("created_at"))["at"]
    silent = Run.objects.filter(state=Run.State.RUNNING).aggregate(at=Min("heartbeat_at"))["at"]
    for name, text, since in (
        ("prefloop_oldest_queued_run_seconds", "How long the oldest queued run has waited", oldest),
        ("prefloop_longest_silent_run_seconds", "Since the oldest heartbeat of a running run", silent),
    ):
        Gauge(name, text, registry=registry).set((at - since).total_seconds() if since else 0)
    return registry
