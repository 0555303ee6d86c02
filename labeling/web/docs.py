"""The documentation: Markdown files of templates/docs, in an order of reading."""

from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language
from django.views.decorators.http import require_safe

from labeling.web.markdown import render_markdown

FOLDER = Path(settings.BASE_DIR) / "templates" / "docs"
ORDER = (
    "index", "quickstart", "annotating", "assigning", "quality", "importing", "formats", "snapshots", "exporting", "loop",
    "training", "client", "webhooks", "api", "operating", "glossary",
)  # fmt: skip


@lru_cache(maxsize=32)
def _title(path: Path, changed: float) -> str:
    first = path.read_text(encoding="utf-8").lstrip().split("\n", 1)[0]
    return first.lstrip("# ").strip()


@lru_cache(maxsize=32)
def _page(path: Path, changed: float, language: str) -> SafeString:
    """`language`: of the buttons on code blocks."""
    # Our own text, whose language is known.
    return mark_safe(render_markdown(path.read_text(encoding="utf-8")).replace(' lang=""', ' lang="en"', 1))


def chapters() -> list[tuple[str, str]]:
    """(name, title) of every page that is written, in the order of reading."""
    files = {name: FOLDER / f"{name}.md" for name in ORDER}
    return [(name, _title(path, path.stat().st_mtime)) for name, path in files.items() if path.exists()]


@require_safe
def docs(request: HttpRequest, name: str = "index") -> HttpResponse:
    known = chapters()
    if name not in dict(known):
        raise Http404("There is no such page")
    path = FOLDER / f"{name}.md"
    place = [chapter for chapter, _ in known].index(name)
    return render(
        request,
        "docs/page.html",
        {
            "chapters": known,
            "name": name,
            "title": known[place][1],
            "body": _page(path, path.stat().st_mtime, get_language()),
            "following": known[place + 1] if place + 1 < len(known) else None,
        },
    )
