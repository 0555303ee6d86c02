"""Write views of a snapshot to files, freezing a snapshot first if none is named."""

import hashlib
import os
import shutil
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.preferences.card import card_of, views_with_rows
from labeling.preferences.errors import PreferenceError
from labeling.preferences.models import Snapshot
from labeling.preferences.services import SPLITS, create_snapshot
from labeling.preferences.views_of_snapshots import VIEWS, view_file
from labeling.preferences.views_out.view import CONTENT_TYPES
from labeling.projects.models import Project

FORMATS = sorted(set(CONTENT_TYPES) - {"xml"})


class Command(BaseCommand):
    help = (
        "Write one view of a snapshot to a file, or views with a dataset card to a folder as the Hugging Face hub takes\n"
        "it. Without --number the project as it is now is frozen first.\n\n"
        "Examples:\n"
        "  python manage.py export_snapshot support train.parquet --view preference --split train\n"
        "  python manage.py export_snapshot support --output out --view preference --view sft --format parquet --card\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="short name of the project")
        parser.add_argument(
            "file", type=Path, nargs="?",
            help="ends in .jsonl, .parquet, .csv, .jsonl.gz or .csv.gz (argilla, label_studio: .json)",
        )  # fmt: skip
        parser.add_argument("--output", type=Path, help="a folder instead: it gets VIEW/SPLIT.FORMAT of both splits")
        parser.add_argument("--number", type=int, help="of the snapshot (default: freeze one now)")
        parser.add_argument(
            "--view", choices=sorted(VIEWS), action="append",
            help="(default: preference; in a folder all that have rows; may be given several times there)",
        )  # fmt: skip
        parser.add_argument("--split", choices=SPLITS, help="of the file (default: train)")
        parser.add_argument("--format", choices=FORMATS, default="parquet", help="in a folder (%(default)s)")
        parser.add_argument("--card", action="store_true", help="write README.md, the dataset card, into the folder")

    def handle(
        self, *, project: str, file: Path | None, output: Path | None, number: int | None, view: list[str] | str | None,
        split: str | None, format: str, card: bool, **options: Any,
    ) -> None:  # fmt: skip
        views = [view] if isinstance(view, str) else view or []
        if (file is None) == (output is None):
            raise CommandError("Name a file, or a folder with --output: one of them")
        if file is not None and (card or len(views) > 1):
            raise CommandError("A card, and several views, need a folder: --output")
        if output is not None and split is not None:
            raise CommandError("A folder gets both splits: leave out --split")
        kind = format if file is None else _kind_of(file, views[0] if views else "preference")
        try:
            snapshot = self.snapshot(project, number)
            if file is not None:
                self.write(snapshot, (views or ["preference"])[0], split or "train", kind, file)
                return
            there_is = views_with_rows(snapshot, kind)
            if strangers := [name for name in views if kind not in VIEWS[name].kinds]:
                raise CommandError(f"{strangers[0]} comes as {', '.join(VIEWS[strangers[0]].kinds)}, not as {kind}")
            chosen = [name for name in there_is if not views or name in views]
            for name in chosen:
                for of_view in there_is[name]:
                    self.write(snapshot, name, of_view, kind, output / name / f"{of_view}.{kind}")
            if card:
                text = card_of(snapshot, kind=kind, views=chosen)
                output.mkdir(parents=True, exist_ok=True)
                (output / "README.md").write_text(text, encoding="utf-8")
                self.stdout.write(f"{output / 'README.md'}: the dataset card")
        except PreferenceError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"{file or output} cannot be written: {error}") from None

    def snapshot(self, slug: str, number: int | None) -> Snapshot:
        found = Project.objects.filter(slug=slug).first()
        if found is None:
            raise CommandError(f"There is no project {slug!r}")
        if number is None:
            return create_snapshot(project=found, created_by=None)
        snapshot = found.snapshots.select_related("project").filter(number=number).first()
        if snapshot is None:
            raise CommandError(f"{slug} has no snapshot #{number}")
        return snapshot

    def write(self, snapshot: Snapshot, view: str, split: str, kind: str, target: Path) -> None:
        source = view_file(snapshot, split=split, view=view, format=kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = _copy(source, target)
        self.stdout.write(
            f"{snapshot} of {snapshot.project.slug} ({snapshot.content_hash[:12]}), view {view}, {split}: "
            f"{target} ({target.stat().st_size} bytes, SHA-256 {digest})"
        )


def _kind_of(file: Path, view: str) -> str:
    kinds = VIEWS[view].kinds
    found = next((kind for kind in sorted(kinds, key=len, reverse=True) if file.name.endswith(f".{kind}")), None)
    if found is None:
        raise CommandError(f"{file} must end in .{' or .'.join(kinds)}")
    return found


def _copy(source: Path, target: Path) -> str:
    """Whole or not at all. Returns the hash of what was written."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(descriptor)
    try:
        shutil.copyfile(source, name)
        os.chmod(name, 0o644)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    with open(target, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
