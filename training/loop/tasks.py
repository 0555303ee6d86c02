from celery import shared_task

from training.loop.models import Iteration
from training.loop.services import advance_iteration


@shared_task
def advance_iterations() -> int:
    """Move every iteration on that can be moved. Returns how many are under way."""
    under_way = Iteration.objects.exclude(stage__in=[Iteration.Stage.DONE, Iteration.Stage.FAILED])
    for iteration in under_way.select_related("project"):
        advance_iteration(iteration)
    return len(under_way)
