"""What the guideline page of the app below shows of judgements and reviews."""

from typing import Any

from django import template
from django.template import Context

from labeling.quality.adjudication import open_notes
from labeling.quality.guideline_record import guideline_record as record_of

register = template.Library()
MOST_NOTES = 50


@register.inclusion_tag("console/quality/_guideline_record.html")
def guideline_record(project: Any) -> dict[str, Any]:
    return {"project": project, "record": record_of(project)}


@register.inclusion_tag("console/quality/_guideline_notes.html", takes_context=True)
def guideline_notes(context: Context, project: Any) -> dict[str, Any]:
    notes = list(open_notes(project)[: MOST_NOTES + 1])
    shared = {name: context.get(name) for name in ("can_steer", "can_review", "csrf_token", "request")}
    return {**shared, "project": project, "notes": notes[:MOST_NOTES], "has_more": len(notes) > MOST_NOTES}
