"""Freezing snapshots and taking them out."""

from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.timezone import now
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle

from labeling.accounts.roles import READING, TRAINING
from labeling.preferences.card import card_of
from labeling.preferences.diff import difference
from labeling.preferences.errors import BadFilter, BeingMade, NoRoom, NothingToFreeze, UnknownView
from labeling.preferences.files import OutOfRange, send_file
from labeling.preferences.freezes import freezes_visible_to, start_freeze
from labeling.preferences.models import Snapshot
from labeling.preferences.preview import preview_of
from labeling.preferences.selectors import snapshots_visible_to
from labeling.preferences.serializers import (
    DiffSerializer,
    FreezeSerializer,
    NewSnapshotSerializer,
    SnapshotDetailSerializer,
    SnapshotPreviewSerializer,
    SnapshotSerializer,
    VerificationSerializer,
    WantedSerializer,
)
from labeling.preferences.services import create_snapshot
from labeling.preferences.verification import verify
from labeling.preferences.views_of_snapshots import DEFAULT_VIEW, VIEWS, view_file
from labeling.preferences.views_out.view import CONTENT_TYPES
from labeling.preferences.withdrawal import withdrawn_rows_in
from labeling.projects.api_access import ApiView
from labeling.web.api import PAGE_PARAMETERS, CursorPages, Refused, describe, header, page_of, query, wrong_fields

SENT_TYPES = sorted({type.partition(";")[0] for type in CONTENT_TYPES.values()})
SECONDS_UNTIL_MADE = 10


class SnapshotThrottle(UserRateThrottle):
    scope = "snapshot"
    rate = "30/min"

    def allow_request(self, request: Request, view: ApiView) -> bool:
        return request.method != "POST" or super().allow_request(request, view)


class PreviewThrottle(UserRateThrottle):
    scope = "snapshot_preview"
    rate = "60/min"


class VerifyThrottle(UserRateThrottle):
    scope = "snapshot_verify"
    rate = "30/min"


class SnapshotsView(ApiView):
    throttle_classes = [SnapshotThrottle]

    @describe(
        "list_snapshots", tag="snapshots", answers={200: page_of(SnapshotSerializer)}, errors=[400, 404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        self.project(slug, READING)
        paginator = CursorPages()
        found = paginator.paginate_queryset(snapshots_visible_to(request.user).filter(project__slug=slug), request, self)
        shown = SnapshotSerializer(found, many=True, context={"withdrawn": withdrawn_rows_in(found)})
        return paginator.get_paginated_response(shown.data)

    @describe(
        "create_snapshot", tag="snapshots", body=NewSnapshotSerializer,
        answers={201: SnapshotDetailSerializer, 200: SnapshotDetailSerializer, 202: FreezeSerializer},
        errors=[404, 409, 429, 507],
        parameters=[query("background", description="1: answer 202 at once, and freeze in a worker", enum=["0", "1"])],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Freeze the judgements that pass the filters; rows that are frozen already answer 200 with their snapshot.

        With `background=1` the answer is 202 with a freeze to ask after at `/freezes/{id}/`.
        """
        project = self.project(slug, TRAINING)
        wanted = self.parsed(NewSnapshotSerializer)
        in_background = request.query_params.get("background", "0")
        if in_background not in ("0", "1"):
            raise wrong_fields({"background": "must be 0 or 1"})
        began_at = now()
        try:
            if in_background == "1":
                freeze = start_freeze(project=project, created_by=request.user, **wanted)
                return Response(FreezeSerializer(freeze).data, status=202)
            snapshot = create_snapshot(project=project, created_by=request.user, **wanted)
        except BadFilter as error:
            raise wrong_fields(error.fields) from None
        except NothingToFreeze as error:
            raise Refused("nothing_to_freeze", str(error), status=409) from None
        except NoRoom as error:
            raise Refused("no_room", str(error), status=507) from None
        status = 201 if snapshot.created_at >= began_at else 200
        return Response(_in_full(snapshot), status=status)


class PreviewView(ApiView):
    throttle_classes = [PreviewThrottle]

    @describe(
        "preview_snapshot", tag="snapshots", body=WantedSerializer, answers={200: SnapshotPreviewSerializer}, errors=[404, 429]
    )
    def post(self, request: Request, slug: str) -> Response:
        """What would be frozen now, counted: of whom, in which split, and what each filter leaves out."""
        project = self.project(slug, TRAINING)
        try:
            return Response(SnapshotPreviewSerializer(preview_of(project, **self.parsed(WantedSerializer))).data)
        except BadFilter as error:
            raise wrong_fields(error.fields) from None


class FreezeView(ApiView):
    @describe("get_freeze", tag="snapshots", answers={200: FreezeSerializer}, errors=[404])
    def get(self, request: Request, freeze_id: str) -> Response:
        """How far a freeze in the background is; its `snapshot` once it is done, its `problem` where it failed."""
        return Response(FreezeSerializer(self.find(freezes_visible_to(request.user), freeze_id)).data)


class SnapshotView(ApiView):
    @describe("get_snapshot", tag="snapshots", answers={200: SnapshotDetailSerializer}, errors=[404])
    def get(self, request: Request, snapshot_id: str) -> Response:
        """A snapshot with its manifest: files and their SHA-256, counts, filters, versions."""
        return Response(_in_full(self.find(snapshots_visible_to(request.user), snapshot_id)))


def _in_full(snapshot: Snapshot) -> dict[str, Any]:
    return SnapshotDetailSerializer(snapshot, context={"withdrawn": withdrawn_rows_in([snapshot])}).data


class DiffView(ApiView):
    @describe(
        "compare_snapshots", tag="snapshots", answers={200: DiffSerializer}, errors=[400, 404, 503],
        parameters=[query("to", description="id of the other snapshot, of the same project", required=True)],
    )  # fmt: skip
    def get(self, request: Request, snapshot_id: str) -> Response:
        """What changed from this snapshot to another: pairs, judgements, prompts, filters and policy, with examples."""
        before = self.find(snapshots_visible_to(request.user), snapshot_id)
        wanted = request.query_params.get("to", "")
        is_id = wanted.isascii() and wanted.isdigit() and len(wanted) < 19
        after = Snapshot.objects.filter(project=before.project_id, pk=int(wanted)).first() if is_id else None
        if after is None:
            raise wrong_fields({"to": "must be the id of a snapshot of the same project"})
        try:
            return Response(DiffSerializer(difference(before, after)).data)
        except BeingMade as error:
            raise Refused("being_made", str(error), status=503, wait=SECONDS_UNTIL_MADE) from None


class CardView(ApiView):
    @describe(
        "get_snapshot_card", tag="snapshots", answers={(200, "text/markdown"): OpenApiTypes.STR}, errors=[404, 503]
    )
    def get(self, request: Request, snapshot_id: str) -> HttpResponse:
        """The dataset card: Markdown with a head in YAML, as the Hugging Face hub takes it for README.md."""
        snapshot = self.find(snapshots_visible_to(request.user), snapshot_id)
        try:
            text = card_of(snapshot, address=request.build_absolute_uri("/api/v1/"))
        except BeingMade as error:
            raise Refused("being_made", str(error), status=503, wait=SECONDS_UNTIL_MADE) from None
        return HttpResponse(text, content_type="text/markdown; charset=utf-8")


class VerifyView(ApiView):
    throttle_classes = [VerifyThrottle]

    @describe("verify_snapshot", tag="snapshots", answers={200: VerificationSerializer}, errors=[404, 429])
    def get(self, request: Request, snapshot_id: str) -> Response:
        """Read the frozen files whole, and say whether they are what was frozen: SHA-256 against those kept."""
        checked = list(verify(self.find(snapshots_visible_to(request.user), snapshot_id)))
        return Response(
            VerificationSerializer({"ok": not any(one.problem for one in checked), "checked": checked}).data
        )


class SnapshotFileView(ApiView):
    @describe(
        "download_snapshot", tag="snapshots",
        answers={(status, type): OpenApiTypes.BINARY for status in (200, 206) for type in SENT_TYPES}
        | {304: OpenApiResponse(description="you have it already")},
        errors=[400, 404, 416],
        parameters=[
            query("view", description=f"default: {DEFAULT_VIEW}", enum=list(VIEWS)),
            header("Range", "one range of bytes", required=False),
            header("If-Range", "the ETag that the range is of", required=False),
            header("If-None-Match", "ETags that you have", required=False),
        ],
    )  # fmt: skip
    def get(self, request: Request, snapshot_id: str, split: str, kind: str) -> HttpResponseBase:
        """One split as a file: `train` or `eval` as `jsonl`, `jsonl.gz`, `parquet`, `csv` or `csv.gz`; `argilla` and
        `label_studio` as `jsonl`, `jsonl.gz` or `json`, with `settings.json` and `config.xml` beside them. The ETag is
        its SHA-256; a broken download goes on with `Range` and `If-Range`."""
        snapshot = self.find(snapshots_visible_to(request.user), snapshot_id)
        view = request.query_params.get("view", DEFAULT_VIEW)
        if view not in VIEWS:
            raise wrong_fields({"view": f"Choose from {', '.join(VIEWS)}"})
        try:
            path = view_file(snapshot, split=split, view=view, format=kind)
        except UnknownView as error:
            raise Refused("not_found", str(error), status=404) from None
        except BeingMade as error:
            raise Refused("being_made", str(error), status=503, wait=SECONDS_UNTIL_MADE) from None
        filename = f"{snapshot.project.slug}-{snapshot.number}-{view}.{split}.{kind}"
        return send_file(request._request, path, content_type=CONTENT_TYPES[kind], filename=filename)

    head = get

    def handle_exception(self, error: Exception) -> Response:
        response = super().handle_exception(error)
        if isinstance(error, OutOfRange):
            response["Content-Range"] = f"bytes */{error.size}"
        return response
