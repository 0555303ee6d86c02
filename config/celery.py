"""The Celery application: queue `default` for small work, queue `gpu` for training runs."""

import logging
import os
import warnings

from celery import Celery
from celery.beat import EmbeddedService
from celery.platforms import SecurityWarning
from celery.signals import worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("prefloop")
app.config_from_object("django.conf:settings", namespace="CELERY")
# Remote control is one more connection to go deaf when the broker restarts, and a way in; the database says what runs.
app.conf.worker_enable_remote_control = False
# Every period is short, so there is nothing to remember across restarts, and no file to find torn.
app.conf.beat_scheduler = "celery.beat:Scheduler"
app.autodiscover_tasks()

# Both warn of what is not so here: messages are JSON, never pickles, and the queue folder needs no host.
warnings.filterwarnings("ignore", category=SecurityWarning)
logging.getLogger("kombu.connection").setLevel(logging.ERROR)


@worker_ready.connect
def start_clock(**_: object) -> None:
    """In the worker that has PREFLOOP_CLOCK=1, a thread starts the periodic tasks: it can't outlive its worker."""
    if os.environ.get("PREFLOOP_CLOCK") == "1":
        EmbeddedService(app, thread=True).start()
