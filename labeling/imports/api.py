"""Rows coming in over REST."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.http import FileResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle

from labeling.accounts.roles import READING, TRAINING
from labeling.imports import storage
from labeling.imports.errors import BadImport, DiskFull, FileTooLarge, NotNow
from labeling.imports.formats import FORMATS
from labeling.imports.preview import preview
from labeling.imports.reading import unknown_format
from labeling.imports.selectors import imports_visible_to
from labeling.imports.serializers import (
    ImportPreviewSerializer,
    ImportResultSerializer,
    ImportSerializer,
    ListedImportSerializer,
)
from labeling.imports.services import request_cancel, resume_import, run_import, start_import
from labeling.imports.storage import Upload
from labeling.projects.api_access import ApiView
from labeling.projects.models import Import
from labeling.web.api import (
    PAGE_PARAMETERS,
    Refused,
    describe,
    length_required,
    page_of,
    query,
    sent_in_chunks,
    wrong_fields,
)

FILE_TYPES = (
    "application/x-ndjson", "application/jsonl", "application/jsonlines", "text/plain", "application/octet-stream",
    "application/json", "text/csv", "text/tab-separated-values", "application/vnd.apache.parquet", "application/x-parquet",
    "application/gzip", "application/x-gzip", "application/vnd.apache.arrow.file", "application/vnd.apache.arrow.stream",
)  # fmt: skip
PARTS = {"file", "mapping", "options"}
BODY = {
    **dict.fromkeys(FILE_TYPES, OpenApiTypes.BINARY),
    "multipart/form-data": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "mapping": {"type": "string", "description": 'JSON: {"column of the format": "column of the file"}'},
            "options": {"type": "string", "description": 'JSON: {"option of the format": "value"}'},
        },
        "required": ["file"],
    },
}
HOW = [
    query("format", description="what a row is; left out: recognised by the first rows", enum=list(FORMATS)),
    query("mapping", description='JSON: {"column of the format": "column of the file"}; for a body that is the file itself'),
    query("options", description='JSON: {"option of the format": "value"}; the same'),
]
ORIGIN = [
    query("source", description="where the rows come from, for those that don't say so"),
    query("licence", description="under which licence they are, for those that don't say so"),
    query("tags", description="added to those of each row, with commas between them"),
]


class ImportThrottle(UserRateThrottle):
    scope = "import"
    rate = "60/min"


class FileView(ApiView):
    """A call whose body is a file, as it is or as a part of a form."""

    parser_classes = [MultiPartParser]
    throttle_classes = [ImportThrottle]
    takes_chunks = True

    @property
    def most_bytes(self) -> int | None:
        """None: what files of rows may have."""
        return None

    @contextmanager
    def received(self, request: Request) -> Iterator[tuple[Upload, str]]:
        """The file on the disk and what it is called; gone after this unless an import took it on."""
        try:
            if announced_bytes(request) > (self.most_bytes or storage.max_bytes()):
                raise storage.too_large(self.most_bytes)
            read, filename = self._stream(request)
            upload = storage.receive(read, most_bytes=self.most_bytes)
        except FileTooLarge as error:
            raise Refused("request_too_large", f"{error}. Nothing of it was taken", status=413) from None
        except (DiskFull, OSError) as error:
            full = error if isinstance(error, DiskFull) else storage.said_of_disk(error)
            if full is None:
                raise
            raise Refused("disk_full", str(full), status=507) from None
        try:
            yield upload, filename
        except BadImport as error:
            raise wrong_fields(error.fields) from None
        finally:
            storage.discard(upload)

    def choices(self, request: Request) -> dict[str, Any]:
        """How the file is to be read."""
        format = request.query_params.get("format", "")
        if format and format not in FORMATS:
            raise wrong_fields(unknown_format(format).fields)
        return {"format": format, **{name: self._texts(request, name) for name in ("mapping", "options")}}

    def _texts(self, request: Request, name: str) -> dict[str, str] | None:
        given = request.data.get(name) if mime_of(request) == "multipart/form-data" else None
        given = given or request.query_params.get(name)
        if not given:
            return None
        try:
            value = json.loads(given)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not all(isinstance(text, str) and "\x00" not in text for text in value.values()):
            raise wrong_fields({name: 'Must be JSON, an object of texts: {"name": "value"}'})
        return value

    def _stream(self, request: Request) -> tuple[Callable[[int], bytes], str]:
        mime = mime_of(request)
        if mime == "multipart/form-data":
            if sent_in_chunks(request):
                raise length_required()
            if unknown := sorted(set(request.data) - PARTS):
                raise wrong_fields({unknown[0]: "This field is not known here."})
            if "file" not in request.FILES:
                raise wrong_fields({"file": "Send the rows as a file under this name"})
            return request.FILES["file"].read, request.FILES["file"].name
        if mime and mime not in FILE_TYPES:
            raise UnsupportedMediaType(mime)
        environ = getattr(request, "environ", {})
        if sent_in_chunks(request) and environ.get("wsgi.input_terminated"):
            return environ["wsgi.input"].read, ""
        return request._request.read, ""


class ImportsView(FileView):
    def get_throttles(self) -> list[Any]:
        return super().get_throttles() if self.request.method == "POST" else []

    @describe(
        "list_imports", tag="imports", answers={200: page_of(ListedImportSerializer)}, errors=[404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """What came in, newest first."""
        self.project(slug, READING)
        found = imports_visible_to(request.user).filter(project__slug=slug).defer("rejected")
        return self.page(found, ListedImportSerializer)

    @describe(
        "import_rows", tag="imports", body=BODY,
        parameters=[*HOW, *ORIGIN, query("background", bool, "1: answer at once, and take the file in afterwards")],
        answers={201: ImportResultSerializer, 202: ImportSerializer}, errors=[404, 429, 507],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Take a file in, from the body or a multipart form, in constant memory: JSON lines, JSON, CSV, Parquet, also in gzip.

        Good rows stay even if others are refused; the same rows again add nothing. Without `background=1` the answer
        comes when all is taken.
        """
        project = self.project(slug, TRAINING)
        in_background = flag(request, "background")
        origin = {name: request.query_params.get(name, "").strip() for name in ("source", "licence")}
        tags = [tag for tag in (part.strip() for part in request.query_params.get("tags", "").split(",")) if tag]
        choices = self.choices(request)
        with self.received(request) as (upload, filename):
            record = start_import(
                project=project, path=upload, filename=filename, **choices, **origin, tags=tags, created_by=request.user,
                enqueue=in_background,
            )  # fmt: skip
        if in_background:
            return Response(ImportSerializer(Import.objects.select_related("project").get(pk=record.pk)).data, status=202)
        record = run_import(record.pk)
        if record.state == Import.State.FAILED:
            kept = f" Rows before that are kept: {record.n_taken:,} added something." if record.n_rows else ""
            raise wrong_fields({"file": record.problem.rstrip(".") + f".{kept}"})
        return Response(ImportResultSerializer(record).data, status=201)


class PreviewView(FileView):
    @describe(
        "preview_import", tag="imports", body=BODY, parameters=HOW, answers={200: ImportPreviewSerializer}, errors=[404, 429, 507]
    )
    def post(self, request: Request, slug: str) -> Response:
        """What the first rows of a file would become: the format and why, columns, records, problems. Takes nothing in."""
        self.project(slug, TRAINING)
        choices = self.choices(request)
        with self.received(request) as (upload, filename):
            shown = preview(upload.path, filename=filename, **choices)
            if shown.wrong:
                raise wrong_fields(shown.wrong)
        return Response(ImportPreviewSerializer(shown).data)


class ImportView(ApiView):
    @describe("get_import", tag="imports", answers={200: ImportSerializer}, errors=[404])
    def get(self, request: Request, import_id: str) -> Response:
        return Response(ImportSerializer(self.find(imports_visible_to(request.user), import_id)).data)


class ActionView(ApiView):
    def act(self, record: Import) -> None:
        raise NotImplementedError

    def answer(self, request: Request, import_id: str) -> Response:
        record = self.find(imports_visible_to(request.user), import_id, TRAINING)
        try:
            self.act(record)
        except NotNow as error:
            raise Refused("wrong_state", str(error), status=409) from None
        return Response(ImportSerializer(imports_visible_to(request.user).get(pk=record.pk)).data)


class CancelView(ActionView):
    def act(self, record: Import) -> None:
        request_cancel(record=record)

    @describe("cancel_import", tag="imports", answers={200: ImportSerializer}, errors=[404, 409])
    def post(self, request: Request, import_id: str) -> Response:
        """End a waiting import, or have a running one end after the rows in hand. What was taken stays."""
        return self.answer(request, import_id)


class ResumeView(ActionView):
    def act(self, record: Import) -> None:
        resume_import(record=record)

    @describe("resume_import", tag="imports", answers={200: ImportSerializer}, errors=[404, 409])
    def post(self, request: Request, import_id: str) -> Response:
        """Have an import that failed or was cancelled go on after the last row it took, in the background."""
        return self.answer(request, import_id)


class RejectedView(ApiView):
    @describe("list_rejected_rows", tag="imports", answers={(200, "application/x-ndjson"): OpenApiTypes.BINARY}, errors=[404])
    def get(self, request: Request, import_id: str) -> HttpResponseBase:
        """Every row that was refused, as JSON lines: `line`, `reason`, `row`, a long one as the beginning of its text."""
        return rejected_rows(self.find(imports_visible_to(request.user), import_id))


def rejected_rows(record: Import) -> HttpResponseBase:
    """The list as a file, as far as it was committed."""
    path = storage.rejected_file_of(record)
    name = f"import-{record.pk}-rejected.jsonl"
    headers = {"Content-Type": "application/x-ndjson", "Content-Disposition": f'attachment; filename="{name}"'}
    parts = storage.beginning_of(path, record.rejected_bytes)
    return FileResponse(parts, headers=headers)


def mime_of(request: Request) -> str:
    return (request.content_type or "").split(";")[0].strip().lower()


def announced_bytes(request: Request) -> int:
    text = str(request.META.get("CONTENT_LENGTH") or "0")
    return int(text) if text.isdigit() and len(text) < 19 else 0


def flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "").lower()
    if given not in ("", "0", "1", "true", "false"):
        raise wrong_fields({name: "Must be 1 or 0"})
    return given in ("1", "true")
