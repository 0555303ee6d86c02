"""Take part in runs that are spread over several machines, on each but the first."""

import contextlib
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from training.runs.joining import join_runs


class Command(BaseCommand):
    help = (
        "Take part in runs that are spread over several machines, on each but the first, where a worker takes them.\n"
        "All share PREFLOOP_HOME, the database and PREFLOOP_TRAIN_RENDEZVOUS.\n\n"
        "Example, on the second of two: PREFLOOP_TRAIN_NODES=2 PREFLOOP_TRAIN_NODE_RANK=1 "
        "PREFLOOP_TRAIN_RENDEZVOUS=gpu1:29500 python manage.py join_runs\n"
    )

    def handle(self, **options: Any) -> None:
        if settings.TRAIN_NODES < 2:
            raise CommandError("Runs take one machine here: set PREFLOOP_TRAIN_NODES to how many they shall take")
        if settings.TRAIN_NODE_RANK == 0:
            raise CommandError(
                "This is the first machine, where a worker takes the runs: set PREFLOOP_TRAIN_NODE_RANK to 1 or more on the others"
            )
        self.stdout.write(f"Machine {settings.TRAIN_NODE_RANK} of {settings.TRAIN_NODES} takes part in what the first one runs")
        with contextlib.suppress(KeyboardInterrupt):
            join_runs(rank=settings.TRAIN_NODE_RANK)
