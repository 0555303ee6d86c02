"""Ports for servers that tests start."""

import random
import socket
from contextlib import ExitStack

# Below the range a kernel gives to outgoing connections (32768 and up on Linux): one of those, opened between the
# look and the start of a server, would take the port away.
LOWEST, HIGHEST = 15_000, 31_000


def free_port(n: int = 1) -> int:
    """The first of `n` ports in a row on the loopback that nobody listens on."""
    draw = random.SystemRandom()
    while True:
        first = draw.randrange(LOWEST, HIGHEST)
        with ExitStack() as probes:
            try:
                for port in range(first, first + n):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
