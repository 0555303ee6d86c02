"""What every template may load: markdown, the import map, the header's project menu, a few formats."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from django import template
from django.apps import apps
from django.conf import settings
from django.template import Context
from django.templatetags.static import static
from django.utils.safestring import SafeString, mark_safe

from labeling.web.markdown import render_markdown

register = template.Library()
register.filter("markdown", render_markdown)


def module_files() -> dict[str, str]:
    """Module name to static file: each `static/<app>/<name>.js` of our own apps is the module `<name>`."""
    found: dict[str, str] = {}
    for app in apps.get_app_configs():
        if app.name.startswith(("labeling.", "training.")):
            folder = Path(app.path) / "static"
            for file in sorted(folder.glob("*/*.js")):
                if file.stem in found:
                    raise ValueError(f"Two modules are named {file.stem!r}: {found[file.stem]} and {file}")
                found[file.stem] = file.relative_to(folder).as_posix()
    return found


@lru_cache(maxsize=1)
def _import_map() -> str:
    text = json.dumps({"imports": {name: static(path) for name, path in module_files().items()}})
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@register.simple_tag
def import_map() -> SafeString:
    """The JSON that lets modules import each other by name at hashed addresses."""
    if settings.DEBUG:
        _import_map.cache_clear()
    return mark_safe(_import_map())  # file names of our own, escaped above


@register.filter(name="json")
def as_json(value: object) -> str:
    """As JSON for an attribute (templates escape it); an empty list or object gives an empty text."""
    return json.dumps(value, ensure_ascii=False) if value else ""


@register.inclusion_tag("web/_site_nav.html", takes_context=True)
def site_nav(context: Context) -> dict[str, Any]:
    """The project one is in, the others, and where its role may go. Reads the person's own memberships."""
    memberships = list(context["user"].memberships.select_related("project").order_by("project__name"))
    project = context.get("project")
    current = next((m for m in memberships if project and m.project_id == getattr(project, "pk", None)), None)
    return {
        "memberships": memberships,
        "current": current,
        "section": context.get("section", ""),
        "request": context.get("request"),
    }


@register.filter
def duration(seconds: float | None) -> str:
    """41 s, 3 min, 2 h 05: as short as it can be read."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02}"
