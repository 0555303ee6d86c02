"""What `make test` runs: every check and test in turn, on SQLite and then the data layer on PostgreSQL.

A missing program (Chromium, PostgreSQL, Redis) skips the tests that need it and says what to install; with CI=true
they fail instead. Ends with one line a stage, and fails if any failed.

Run: python -m tests.services.run_all
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.services import postgres

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "chromium": ("chromium", lambda: shutil.which("chromium") or shutil.which("chromium-browser")),
    "PostgreSQL": ("postgresql", lambda: not postgres.missing()),
    "redis-server": ("redis-server", lambda: shutil.which("redis-server")),
}
PYTEST = [sys.executable, "-m", "pytest", "-q"]
# Those that start servers or browsers come in a stage of their own, so that what they wait for is not held up by others.
SERVING = "browser or services"
# Whoever is done takes over what the other hasn't begun: a few files hold the longest tests. Servers serve a whole file.
IN_TWO, BY_FILE = ["-n", "2", "--dist", "worksteal"], ["-n", "2", "--dist", "loadfile"]
# Long tests to which the kind of database makes no difference: once is enough.
WITHOUT_DATABASE = (
    "tests/labeling/imports/formats", "tests/labeling/imports/test_sources.py", "tests/labeling/imports/test_recognition.py",
    "tests/labeling/imports/test_mapping.py", "tests/labeling/quality/statistics", "tests/labeling/web/test_strict_json.py",
    "tests/labeling/web/test_markdown.py", "tests/training/sampling", "tests/training/client",
)  # fmt: skip


def stages() -> list[tuple[str, list[str]]]:
    python = sys.executable
    manage = [python, "manage.py"]
    found = [
        ("migrations are complete", [*manage, "makemigrations", "--check", "--dry-run"]),
        ("Django's checks", [*manage, "check"]),
        ("ruff", [python, "-m", "ruff", "check", "."]),
        ("tests on SQLite", [*PYTEST, *IN_TWO, "-m", f"not ({SERVING}) and not gpu"]),
        ("tests with browser and services", [*PYTEST, *BY_FILE, "-m", f"({SERVING}) and not gpu"]),
    ]
    if not postgres.missing():
        data_layer = [str(path) for path in ("tests/labeling", "tests/training") if (ROOT / path).is_dir()]
        data_layer += [f"--ignore={path}" for path in WITHOUT_DATABASE]
        command = [*PYTEST, *IN_TWO, "-m", f"not ({SERVING} or recipe) and not gpu", *data_layer]
        found.append(
            ("data layer on PostgreSQL", [python, "-m", "tests.services.postgres", "--", *command])
        )
    return found


def run(command: list[str]) -> tuple[int, str]:
    """Its exit status and, of pytest, its closing line."""
    closing = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if re.search(r"\b(passed|failed|error|errors)\b.* in [\d.]+s", line):
                closing = ": " + line.strip(" =\n")
    return process.returncode, closing


def main() -> int:
    packages = [package for package, found in PROGRAMS.values() if not found()]
    if packages:
        print(f"Not installed: {', '.join(packages)}. Install with: apt-get install {' '.join(packages)}")
        if os.environ.get("CI") == "true":
            print("CI=true: every test must run, so this fails.")
            return 1
        print("Tests that need them are skipped.")
    failed, summary = [], []
    for name, command in stages():
        print(f"\n--- {name}: {' '.join(['python', *command[1:]])}", flush=True)
        started = time.monotonic()
        code, closing = run(command)
        if code == 5 and "pytest" in command:  # nothing to run there
            code = 0
        summary.append(f"{'ok' if code == 0 else 'FAILED':7}{time.monotonic() - started:6.0f} s  {name}{closing}")
        if code:
            failed.append(name)
    print("\n" + "\n".join(summary))
    print(f"FAILED: {', '.join(failed)}" if failed else "All passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
