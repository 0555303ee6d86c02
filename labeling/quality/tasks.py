from celery import shared_task

from labeling.quality import services


@shared_task
def compute_due_reports() -> int:
    return services.compute_due_reports()
