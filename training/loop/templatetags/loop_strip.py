"""The line on top of every page of a project: the loop with its counts, and what waits for someone."""

from typing import Any

from django import template

from labeling.projects.models import Project
from training.loop.overview import loop_now, loop_state

register = template.Library()


@register.inclusion_tag("console/_loop_strip.html", takes_context=True)
def loop_strip(context: Any, project: Project | None) -> dict[str, Any]:
    if project is None:
        return {"stations": []}
    state = context.get("loop_state") or loop_state(project)
    return {"stations": state.stations, "now": loop_now(state), "project": project}
