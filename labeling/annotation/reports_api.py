"""What annotators reported, over REST."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING
from labeling.annotation.models import PromptReport
from labeling.projects.api_access import ApiView
from labeling.projects.services import pseudonym_of
from labeling.web.api import PAGE_PARAMETERS, describe, page_of, query, wrong_fields


class PromptReportSerializer(serializers.Serializer):
    id = serializers.CharField()
    prompt = serializers.CharField()
    external_id = serializers.CharField(allow_blank=True, help_text="the prompt's id as it was imported")
    reason = serializers.ChoiceField(PromptReport.Reason.values)
    note = serializers.CharField(allow_blank=True)
    annotator = serializers.CharField(help_text="who reported it: the pseudonym of exports")
    state = serializers.ChoiceField(PromptReport.State.values)
    created_at = serializers.DateTimeField()
    settled_at = serializers.DateTimeField(allow_null=True)

    def to_representation(self, report: PromptReport) -> dict[str, Any]:
        return super().to_representation(
            {
                "id": str(report.pk),
                "prompt": str(report.prompt_id),
                "external_id": report.prompt.external_id,
                "annotator": pseudonym_of(report.project, report.reporter),
                **{name: getattr(report, name) for name in ("reason", "note", "state", "created_at", "settled_at")},
            }
        )


class ReportsView(ApiView):
    @describe(
        "list_reports", tag="annotation", answers={200: page_of(PromptReportSerializer)}, errors=[400, 404],
        parameters=[*PAGE_PARAMETERS, query("state", description="of these only", enum=PromptReport.State.values)],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """What annotators reported of prompts, newest first."""
        project = self.project(slug, READING)
        found = PromptReport.objects.filter(project=project).select_related("prompt", "reporter", "project")
        if state := request.query_params.get("state"):
            if state not in PromptReport.State.values:
                raise wrong_fields({"state": f"Choose from {', '.join(PromptReport.State.values)}"})
            found = found.filter(state=state)
        return self.page(found, PromptReportSerializer)
