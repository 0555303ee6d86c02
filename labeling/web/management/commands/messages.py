"""Collect what is marked for translation into the catalogues and compile them. Needs GNU gettext.

    make messages                        every language there is
    manage.py messages --begin fr        a new one as well; it is offered once settings.LANGUAGES names it

Texts are marked in templates ({% translate %}), Python (gettext) and modules of the pages (`_` of i18n.js). A text
that changed loses its translation: a guess that looks alike would be worse than English.
"""

import ast
import re
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.core.management.commands import makemessages
from django.utils.functional import cached_property

IGNORED = ["locale", "tests", "var", "build", "dist", "bench", "node_modules"]
MARKS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "later"}
DATES = re.compile(r'^"(?:POT-Creation-Date|PO-Revision-Date|Report-Msgid-Bugs-To): .*\\n"\n', re.MULTILINE)


class SourceFile(makemessages.BuildFile):
    """xgettext doesn't look into f-strings, so what is marked in one is repeated for it below the file."""

    @cached_property
    def hidden(self) -> list[str]:
        if self.domain != "django" or not self.path.endswith(".py"):
            return []
        tree = ast.parse(Path(self.path).read_text(encoding="utf-8"))
        inside = (node for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for node in ast.walk(text))
        calls = (node for node in inside if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
        return [ast.unparse(call) for call in calls if call.func.id in MARKS]

    @cached_property
    def is_templatized(self) -> bool:
        return bool(self.hidden) or not self.path.endswith((".py", ".js"))

    def preprocess(self) -> None:
        if not self.hidden:
            super().preprocess()
            return
        source = Path(self.path).read_text(encoding="utf-8")
        Path(self.work_path).write_text("\n".join([source, *self.hidden]), encoding="utf-8")


class Collect(makemessages.Command):
    build_file_class = SourceFile
    msgmerge_options = [*makemessages.Command.msgmerge_options, "--no-fuzzy-matching"]
    # later("...") stands for gettext_noop: marked here, translated where it is shown.
    xgettext_options = [*makemessages.Command.xgettext_options, "--keyword=later"]


class Command(BaseCommand):
    help = "Collect the texts of the pages for translation, and compile the translations."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--begin", metavar="LANGUAGE", help="a language that has no catalogue yet, such as fr")

    def handle(self, *, begin: str | None, verbosity: int, **options: Any) -> None:
        folder = Path(settings.LOCALE_PATHS[0])
        languages = sorted({path.name for path in folder.iterdir() if path.is_dir()} | ({begin} if begin else set()))
        for domain in ("django", "djangojs"):
            call_command(
                Collect(),
                domain=domain,
                locale=languages,
                ignore_patterns=IGNORED,
                add_location="file",
                no_wrap=True,
                no_obsolete=True,
                verbosity=verbosity,
            )
        for file in folder.glob("*/LC_MESSAGES/*.po"):
            text = file.read_text(encoding="utf-8")
            # The dates would change with every run, and every change with them.
            file.write_text(DATES.sub("", text), encoding="utf-8")
        call_command("compilemessages", locale=languages, ignore_patterns=[*IGNORED, ".venv"], verbosity=verbosity)
