"""How many reports wait, for the console's menu."""

from django import template

from labeling.annotation.models import PromptReport
from labeling.projects.models import Project

register = template.Library()


@register.simple_tag
def open_reports(project: Project) -> int:
    """Prompts with an open report. One query on an index."""
    found = PromptReport.objects.filter(project=project, state=PromptReport.State.OPEN)
    return found.values("prompt").distinct().count()
