from celery import shared_task

from labeling.annotation import services


@shared_task
def free_expired_leases() -> int:
    return services.free_expired_leases()
