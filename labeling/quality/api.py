"""How good the judgements are, for those who read the console."""

from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING
from labeling.projects.api_access import ApiView
from labeling.quality.selectors import cached_agreement
from labeling.web.api import describe


class QualityView(ApiView):
    @describe("get_quality", tag="annotation", answers={200: OpenApiTypes.OBJECT}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        """Agreement, and each annotator's reliability and position bias; every figure with n and a 95 % interval."""
        return Response(cached_agreement(self.project(slug, READING)))
