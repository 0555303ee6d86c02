from datetime import timedelta

from celery import shared_task
from django.utils.timezone import now

from labeling.live.models import Event


@shared_task
def forget_old_events() -> int:
    """Delete events that no page will ask for again: a page that was away for longer reloads."""
    deleted, _ = Event.objects.filter(created_at__lt=now() - timedelta(days=2)).delete()
    return deleted
