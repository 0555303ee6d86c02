from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from labeling.database.ownership import owner_name
from training.runs import disk, services
from training.runs.machines import QUEUE, start_saying
from training.runs.watch import watch_run


@worker_ready.connect
def enter_machine(sender: Any, **_: object) -> None:
    """A worker that executes runs says what machine it is on."""
    if QUEUE in sender.app.amqp.queues.consume_from:
        start_saying()


@shared_task
def execute_runs() -> int:
    """Work off every queued run, one at a time. A message is only a wake-up: which run it was sent for is no matter."""
    owner = owner_name()
    count = 0
    while run := services.claim_next_run(owner=owner):
        watch_run(run)
        count += 1
    return count


@shared_task
def sweep_runs() -> int:
    return services.sweep_runs()


@shared_task
def measure_runs() -> int:
    return disk.measure_runs()


@shared_task
def clean_runs() -> int:
    return len(disk.clean_runs())
