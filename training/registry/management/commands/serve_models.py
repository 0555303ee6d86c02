"""Serve local models to live conversations, over the OpenAI protocol."""

import os
import signal
import socket
import threading
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from training.registry.serving import RegistryModels
from training.sampling.server import ModelServer, serve


class Command(BaseCommand):
    help = (
        "Serve the registry's models on this machine, in the protocol of OpenAI's chat completions. `up` starts it "
        "by itself when a conversation first needs it.\n\n"
        "Example:\n  python manage.py serve_models --port 8002\n\n"
        "The secret that callers give is in keys/model_server_key below PREFLOOP_HOME."
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="a loopback address (%(default)s)")
        parser.add_argument("--port", type=int, default=8002, help="%(default)s; 0: any that is free")
        parser.add_argument("--keep", type=int, default=2, help="base models that stay in memory (%(default)s)")
        parser.add_argument(
            "--idle-seconds", type=float, default=0, help="end after so long without a request; 0: never (%(default)s)"
        )

    def handle(self, *, host: str, port: int, keep: int, idle_seconds: float, **options: Any) -> None:
        # One core is left to the site: threads that wait for one another make a step many times slower, not a little,
        # as soon as another process wants a core as well.
        threads = settings.TORCH_THREADS or max(1, (os.cpu_count() or 2) - 1)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        server = ModelServer(RegistryModels(), secret=settings.MODEL_SERVER_KEY, keep=max(1, keep))
        descriptor = os.environ.get("PREFLOOP_LISTEN_FD", "")
        try:
            if descriptor:
                server.take_socket(socket.socket(fileno=int(descriptor)))
            else:
                server.listen(host, port)
        except (OSError, ValueError) as error:
            raise CommandError(f"Models can't be served at {host} port {port}: {error}") from None
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        if not descriptor:
            self.stdout.write(f"Serving models at http://{host}:{server.port}/v1")
            self.stdout.flush()
        serve(server, idle_seconds=idle_seconds, stopped=stopped)
