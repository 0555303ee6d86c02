from celery import shared_task

from labeling.quality import services


@shared_task
def refresh_disagreements() -> int:
    return services.refresh_disagreements()
