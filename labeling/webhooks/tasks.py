from celery import shared_task

from labeling.webhooks import delivering
from labeling.webhooks.events import collect


@shared_task
def send_messages() -> int:
    """Look for what happened, and send what is due."""
    collect()
    return delivering.send_due()


@shared_task
def forget_old_deliveries() -> int:
    return delivering.forget_old_deliveries()
