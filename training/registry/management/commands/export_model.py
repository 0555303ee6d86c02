"""Write a model out as a folder that the Hugging Face hub takes."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training.registry.errors import RegistryError
from training.registry.exporting import export_model
from training.registry.models import ModelVersion
from training.registry.terms import refuse_unaccepted


class Command(BaseCommand):
    help = (
        "Write a model to a new folder: README.md with its card, weights, tokenizer and SHA256SUMS, as the hub takes it.\n"
        "An adapter is written as an adapter; run `merge` first for a model that loads by itself.\n\n"
        "Example:\n  python manage.py export_model support-merge@1 --out /srv/hub/support-assistant\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key", help="name@version")
        parser.add_argument("--out", type=Path, required=True, help="a folder that isn't there yet")

    def handle(self, *, key: str, out: Path, **options: Any) -> None:
        model = ModelVersion.objects.select_related("base", "parent", "snapshot").filter(key=key).first()
        if model is None:
            raise CommandError(f"There is no model {key}")
        try:
            if model.project:
                refuse_unaccepted(model.project, model)
            hashes = export_model(model, out)
        except RegistryError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{key}: {len(hashes)} files in {out}; check them with: sha256sum --check SHA256SUMS")
