import threading

from celery import shared_task

from labeling.imports import services

_alone = threading.Lock()


@shared_task
def take_imports() -> int:
    """Work off every import that waits. A message is only a wake-up: which import it was sent for is no matter.

    A worker takes one at a time, whatever the number of its threads: the others are for what can't wait for minutes.
    """
    count = 0
    while _alone.acquire(blocking=False):
        try:
            while services.run_next_import():
                count += 1
        finally:
            _alone.release()
        if not services.waiting_for_workers().exists():  # one may have come between the last look and the release
            break
    return count


@shared_task
def sweep_imports() -> int:
    return services.sweep_imports()


@shared_task
def remove_old_files() -> int:
    return services.remove_old_files()
