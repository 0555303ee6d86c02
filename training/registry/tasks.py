from celery import shared_task

from training.registry import model_imports


@shared_task
def execute_model_imports() -> int:
    """Work off what waits. A message is only a wake-up: which import it was sent for is no matter."""
    return model_imports.work_off_model_imports()


@shared_task
def sweep_model_imports() -> int:
    return model_imports.sweep_model_imports()
