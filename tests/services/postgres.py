"""A private PostgreSQL cluster in a folder of its own, for as long as a command or a test runs.

Run: python -m tests.services.postgres -- python -m pytest tests/labeling tests/training
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

PACKAGES = "postgresql"
USERS = ("postgres", "nobody")


def find_program(name: str) -> str | None:
    """On the PATH, else the newest where Debian keeps them."""
    if found := shutil.which(name):
        return found
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(versions, key=lambda path: float(path.parts[-3]), default=None)
    return str(newest) if newest else None


def missing() -> str:
    """Why there can be no cluster here, or an empty string."""
    if not (find_program("initdb") and find_program("postgres")):
        return f"PostgreSQL is not installed: apt-get install {PACKAGES}"
    return ""


def _become_unprivileged(folder: Path) -> tuple[Callable[[], None] | None, dict[str, str]]:
    """PostgreSQL refuses to run as root: hand the folder to a user without rights, and become it in the child."""
    if os.getuid() != 0:
        return None, {}
    import pwd

    for name in USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)

        def drop() -> None:
            os.setgroups([])
            os.setgid(user.pw_gid)  # noqa: B023  (the loop ends here)
            os.setuid(user.pw_uid)  # noqa: B023

        return drop, {"HOME": str(folder)}
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody")


class Postgres:
    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self.folder = folder
        self.is_durable = is_durable
        self.port = free_port()
        self.password = secrets.token_hex(12)
        self.drop, self.environment = _become_unprivileged(folder)
        self.process: subprocess.Popen[bytes] | None = None
        password_file = folder / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)  # inside a folder that only its owner enters
        self._run(
            find_program("initdb"), "-D", str(folder / "data"), "-U", "prefloop", "-A", "scram-sha-256",
            "--pwfile", str(password_file), "-E", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip

    def _run(self, *command: str | None) -> None:
        done = subprocess.run(
            [str(part) for part in command], env={**os.environ, **self.environment}, preexec_fn=self.drop,
            capture_output=True, text=True, cwd=self.folder,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")

    @property
    def url(self) -> str:
        return f"postgres://prefloop:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        log = open(self.folder / "log", "ab")  # noqa: SIM115  (the child keeps it)
        self.process = subprocess.Popen(
            [
                str(find_program("postgres")), "-D", str(self.folder / "data"), "-h", "127.0.0.1",
                "-p", str(self.port), "-k", "", "-c", "max_connections=120", "-c", "shared_buffers=64MB",
                # Tests of faults end processes, not the machine's power.
                "-c", f"fsync={'on' if self.is_durable else 'off'}",
            ],
            env={**os.environ, **self.environment}, preexec_fn=self.drop, stdout=log, stderr=log, cwd=self.folder,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 30
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start:\n" + (self.folder / "log").read_text())
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(2)  # SIGINT: fast shutdown
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


@contextmanager
def private_postgres(*, is_durable: bool = False) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="prefloop-postgres-"))
    try:
        server = Postgres(folder, is_durable=is_durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    command = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    if reason := missing():
        print(reason, file=sys.stderr)
        return 3
    with private_postgres() as server:
        return subprocess.run(command, env={**os.environ, "PREFLOOP_DATABASE_URL": server.url}).returncode


if __name__ == "__main__":
    sys.exit(main())
