"""Take in a base model, a policy, a reward model or an adapter that was made elsewhere."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.projects.models import Project
from training.registry.errors import RegistryError
from training.registry.importing import import_model
from training.registry.models import ModelVersion


class Command(BaseCommand):
    help = (
        "Copy a model folder into the site and enter it, once it is known to be safe and complete.\n"
        "Only safetensors are taken; nothing in the folder is run. The folder lies below one of PREFLOOP_MODEL_ROOTS.\n\n"
        "Examples:\n"
        "  python manage.py import_model incoming/Llama-3.2-1B --name llama-3.2-1b --licence llama3.2 --acceptance-due\n"
        "  python manage.py import_model my-adapter --name support-sft --licence MIT --project support --base llama-3.2-1b@1\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", help="absolute, or below one of the allowed folders")
        parser.add_argument("--name", required=True, help="small letters, digits, . _ -")
        parser.add_argument("--licence", required=True, help="its name, such as Apache-2.0")
        parser.add_argument("--kind", choices=["base", "policy", "reward"], help="default: base, and policy with --project")
        parser.add_argument("--project", help="short name of the project that it is of; base models are for all")
        parser.add_argument("--base", metavar="KEY", help="of an adapter: its base model, as name@version")
        parser.add_argument("--source", default="", help="where it comes from, such as its name on the hub")
        parser.add_argument("--plain-template", action="store_true", help="give it a plain chat template where it has none")
        parser.add_argument("--licence-url", default="", help="where the terms can be read")
        parser.add_argument("--fee-due", action="store_true", help="using it costs a fee, or does so in some cases")
        parser.add_argument("--acceptance-due", action="store_true", help="its maker asks for acceptance of the terms first")
        parser.add_argument("--output-restrictions", default="", help="what its terms say of its completions")

    def handle(self, *, project: str | None, base: str | None, kind: str | None, **options: Any) -> None:
        of = Project.objects.filter(slug=project).first()
        if project and of is None:
            raise CommandError(f"There is no project {project}")
        on = ModelVersion.objects.filter(key=base).first()
        if base and on is None:
            raise CommandError(f"There is no model {base}")
        names = (
            "folder", "name", "licence", "source", "plain_template", "licence_url", "fee_due", "acceptance_due",
            "output_restrictions",
        )  # fmt: skip
        wanted = {name: options[name] for name in names}
        try:
            model = import_model(project=of, base=on, kind=kind or ("policy" if of else "base"), **wanted)
        except RegistryError as error:
            raise CommandError(str(error)) from None
        for text in model.lineage["mended"]:
            self.stdout.write(f"Mended: {text}")
        for text in model.lineage["left_behind"]:
            self.stdout.write(f"Left behind: {text}")
        self.stdout.write(f"{model.key} is entered, with {len(model.files)} files in {model.folder}")
