from celery import shared_task

from training.features import services


@shared_task
def sweep_features() -> int:
    return services.sweep_features()


@shared_task
def reconcile_features() -> int:
    return services.reconcile_features()
