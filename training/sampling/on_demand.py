"""Holds a port and starts a server on it when somebody first knocks, so that an idle site stays small.

    python -m training.sampling.on_demand 127.0.0.1 8002 -- python manage.py serve_models

The command gets the listening socket as file descriptor PREFLOOP_LISTEN_FD. It may end whenever nobody needs it: the
next to knock starts it again. One that fails is not started over and over: those who knocked are told with 503.
Nothing beyond the socket module is imported here.
"""

import os
import select
import signal
import socket
import sys
import time

BODY = b'{"error": {"message": "The server could not be started: see its log", "type": "server_error"}}'
DOWN = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 2\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


def main(arguments: list[str]) -> int:
    host, port, command = arguments[0], int(arguments[1]), arguments[arguments.index("--") + 1 :]
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen(64)
    listening.setblocking(False)
    child = 0

    def stop(number: int, frame: object) -> None:
        if child:
            os.kill(child, signal.SIGTERM)
            wait_for(child)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        select.select([listening], [], [])
        child = start(command, listening)
        began = time.monotonic()
        status = wait_for(child)
        child = 0
        if status and time.monotonic() - began < 20:
            turn_away(listening)


def start(command: list[str], listening: socket.socket) -> int:
    """A child of our own process group, so that whoever ends us ends it too."""
    descriptor = listening.fileno()
    os.set_inheritable(descriptor, True)
    return os.posix_spawnp(command[0], command, {**os.environ, "PREFLOOP_LISTEN_FD": str(descriptor)})


def wait_for(child: int) -> int:
    """Its exit status; negative: the signal that ended it."""
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except InterruptedError:
            continue
        except ChildProcessError:
            return 0


def turn_away(listening: socket.socket) -> None:
    """Answer those who wait, so that they know at once."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(1)
            try:
                connection.recv(65536)
                connection.sendall(DOWN)
            except OSError:
                pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
