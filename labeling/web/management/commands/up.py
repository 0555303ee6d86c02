"""Start the whole site and keep it running."""

import os
import signal
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.web.processes import (
    PortTaken,
    ProcessGroup,
    refuse_taken_ports,
    site_processes,
    wait_until_ready,
)
from labeling.web.startup import collect_static_in_background, page_url, prepare_site

READY_SECONDS = 60.0


class Command(BaseCommand):
    help = (
        "Start the site: pages and API, live updates and workers. Ctrl-C ends it in order.\n\n"
        "Example:\n  python manage.py up --port 8000\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
        parser.add_argument(
            "--port", type=int, default=8000, help="pages; live updates use the port after it (%(default)s)"
        )
        parser.add_argument("--no-worker", action="store_true", help="pages only: no imports, no training")

    def handle(self, *, host: str, port: int, no_worker: bool, **options: Any) -> None:
        if not 1 <= port <= 65534:
            raise CommandError("--port must lie between 1 and 65534")
        try:
            refuse_taken_ports(host, port, port + 1)
        except PortTaken as error:
            raise CommandError(str(error)) from None
        prepare_site(verbosity=options["verbosity"] - 1)
        group = ProcessGroup(
            site_processes(host=host, port=port, worker=not no_worker), say=self._say
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: group.request_stop())
        with group:
            url = page_url(host, port)
            ready = wait_until_ready(url + "readyz", seconds=READY_SECONDS, gave_up=group.stopping)
            if ready:
                self.stdout.write(f"Prefloop is ready: {url}   (Ctrl-C ends it; process {os.getpid()})")
            elif not group.stopping():
                raise CommandError(
                    f"{url} did not answer within {READY_SECONDS:g} s; the lines above say why. "
                    "`python manage.py doctor` checks each part"
                )
            self.stdout.flush()
            collect_static_in_background()
            while not group.wait(0.5):  # short waits, so that signals are handled in between
                pass
        self.stdout.write("Stopped.")

    def _say(self, line: str) -> None:
        self.stderr.write(line)
