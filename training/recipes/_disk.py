"""A disk that is full: told from other errors, its torn checkpoints cleared away, and said in words. Imports no torch."""

import errno
import shutil
from pathlib import Path

COMPLETE_FILE = "complete.json"
# torch.save and safetensors raise errors of their own.
FULL = (
    "No space left on device", "os error 28", "Disk quota exceeded", "os error 122", "PytorchStreamWriter failed writing file",
    "iostream error",
)  # fmt: skip


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no more room to write to."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in FULL)


def clear_torn(run_dir: Path) -> None:
    """Delete checkpoints that were not written to their end, so that there is room to say so, and to go on."""
    for folder in (run_dir / "checkpoints").glob("checkpoint-*"):
        if not (folder / COMPLETE_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)


def describe_full(run_dir: Path) -> str:
    """Which disk is full, what is kept, and how much room is needed."""
    disk = shutil.disk_usage(run_dir)
    kept = sorted(
        (path.parent for path in (run_dir / "checkpoints").glob(f"checkpoint-*/{COMPLETE_FILE}")), key=lambda path: path.stat().st_mtime
    )
    said = f"The disk that holds {run_dir} is full: {in_words(disk.free)} of {in_words(disk.total)} are free."
    if not kept:
        return f"{said} No checkpoint was made before. Free some space, then resume: the run begins anew."
    needed = sum(path.stat().st_size for path in kept[-1].rglob("*") if path.is_file())
    return (
        f"{said} A checkpoint takes {in_words(needed)}, and two lie there at a time. {kept[-1].name} is kept: free at least "
        f"{in_words(2 * needed)}, then resume the run, and it goes on from there."
    )


def in_words(n_bytes: int) -> str:
    """Such as 3.2 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes} bytes"
