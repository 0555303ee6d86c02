"""Freezing snapshots and taking them out."""

from django.http import Http404
from django.http.response import HttpResponseBase
from django.utils.timezone import now
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle

from labeling.accounts.roles import READING, TRAINING
from labeling.preferences.errors import BadFilter, NothingToFreeze
from labeling.preferences.files import OutOfRange, send_file
from labeling.preferences.selectors import snapshots_visible_to
from labeling.preferences.serializers import (
    NewSnapshotSerializer,
    SnapshotDetailSerializer,
    SnapshotSerializer,
)
from labeling.preferences.services import SPLITS, create_snapshot
from labeling.preferences.views_of_snapshots import FILE_FORMATS, VIEWS, view_file
from labeling.projects.api_access import ApiView
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, header, page_of, query, wrong_fields

CONTENT_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
DEFAULT_VIEW = "preference"


class SnapshotThrottle(UserRateThrottle):
    scope = "snapshot"
    rate = "30/min"

    def allow_request(self, request: Request, view: ApiView) -> bool:
        return request.method != "POST" or super().allow_request(request, view)


class SnapshotsView(ApiView):
    throttle_classes = [SnapshotThrottle]

    @describe(
        "list_snapshots", tag="snapshots", answers={200: page_of(SnapshotSerializer)}, errors=[400, 404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        self.project(slug, READING)
        return self.page(snapshots_visible_to(request.user).filter(project__slug=slug), SnapshotSerializer)

    @describe(
        "create_snapshot", tag="snapshots", body=NewSnapshotSerializer,
        answers={201: SnapshotDetailSerializer, 200: SnapshotDetailSerializer}, errors=[404, 409, 429],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Freeze the judgements that pass the filters; rows that are frozen already answer 200 with their snapshot."""
        project = self.project(slug, TRAINING)
        wanted = self.parsed(NewSnapshotSerializer)
        began_at = now()
        try:
            snapshot = create_snapshot(project=project, created_by=request.user, **wanted)
        except BadFilter as error:
            raise wrong_fields(error.fields) from None
        except NothingToFreeze as error:
            raise Refused("nothing_to_freeze", str(error), status=409) from None
        status = 201 if snapshot.created_at >= began_at else 200
        return Response(SnapshotDetailSerializer(snapshot).data, status=status)


class SnapshotView(ApiView):
    @describe("get_snapshot", tag="snapshots", answers={200: SnapshotDetailSerializer}, errors=[404])
    def get(self, request: Request, snapshot_id: str) -> Response:
        """A snapshot with its manifest: files and their SHA-256, counts, filters, versions."""
        return Response(SnapshotDetailSerializer(self.find(snapshots_visible_to(request.user), snapshot_id)).data)


class SnapshotFileView(ApiView):
    @describe(
        "download_snapshot", tag="snapshots",
        answers={
            (200, "application/x-ndjson"): OpenApiTypes.BINARY,
            (200, "application/vnd.apache.parquet"): OpenApiTypes.BINARY,
            (206, "application/x-ndjson"): OpenApiTypes.BINARY,
            (206, "application/vnd.apache.parquet"): OpenApiTypes.BINARY,
            304: OpenApiResponse(description="you have it already"),
        },
        errors=[400, 404, 416],
        parameters=[
            query("view", description=f"default: {DEFAULT_VIEW}", enum=list(VIEWS)),
            header("Range", "one range of bytes", required=False),
            header("If-Range", "the ETag that the range is of", required=False),
            header("If-None-Match", "ETags that you have", required=False),
        ],
    )  # fmt: skip
    def get(self, request: Request, snapshot_id: str, split: str, kind: str) -> HttpResponseBase:
        """One split as a file, `train` or `eval`, `jsonl` or `parquet`. The ETag is its SHA-256; a broken download
        goes on with `Range` and `If-Range`."""
        snapshot = self.find(snapshots_visible_to(request.user), snapshot_id)
        if split not in SPLITS or kind not in FILE_FORMATS:
            raise Http404
        view = request.query_params.get("view", DEFAULT_VIEW)
        if view not in VIEWS:
            raise wrong_fields({"view": f"Choose from {', '.join(VIEWS)}"})
        path = view_file(snapshot, split=split, view=view, format=kind)
        filename = f"{snapshot.project.slug}-{snapshot.number}-{view}.{split}.{kind}"
        return send_file(request._request, path, content_type=CONTENT_TYPES[kind], filename=filename)

    head = get

    def handle_exception(self, error: Exception) -> Response:
        response = super().handle_exception(error)
        if isinstance(error, OutOfRange):
            response["Content-Range"] = f"bytes */{error.size}"
        return response
