from celery import shared_task

from labeling.preferences import freezes


@shared_task
def execute_freezes() -> int:
    """Work off what waits. A message is only a wake-up: which freeze it was sent for is no matter."""
    return freezes.work_off_freezes()


@shared_task
def sweep_freezes() -> int:
    return freezes.sweep_freezes()
