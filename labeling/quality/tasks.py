from celery import shared_task

from labeling.quality import services


@shared_task
def compute_due_reports() -> int:
    return services.compute_due_reports()


@shared_task
def refresh_disagreements() -> int:
    return services.refresh_disagreements()
