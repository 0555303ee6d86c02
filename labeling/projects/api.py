"""Projects, their members, and rows coming in."""

from collections.abc import Callable, Iterator
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from rest_framework.exceptions import PermissionDenied, UnsupportedMediaType
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle

from labeling.accounts.models import ApiToken, User
from labeling.accounts.roles import ANNOTATING, STEERING, TRAINING
from labeling.projects.api_access import ApiView
from labeling.projects.errors import (
    BadBench,
    BadForm,
    BadImport,
    BadQuality,
    BadSkills,
    LastLead,
    SlugTaken,
    UnknownVersion,
)
from labeling.projects.imports import FORMATS, MAX_LINE_BYTES, import_rows
from labeling.projects.selectors import members_of
from labeling.projects.serializers import (
    GuidelineReadSerializer,
    ImportSerializer,
    KnowledgeFields,
    MemberSerializer,
    NewMemberSerializer,
    NewProjectSerializer,
    ProjectChangesSerializer,
    ProjectDetailSerializer,
    ProjectSerializer,
    ReadVersionSerializer,
)
from labeling.projects.services import (
    add_member,
    change_member,
    change_project,
    create_project,
    publish_guideline,
    read_guideline,
)
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

MAX_IMPORT_BYTES = 200_000_000
CHUNK_BYTES = 1 << 16
LINES_TYPES = ("application/x-ndjson", "application/jsonl", "text/plain", "application/octet-stream")


class ProjectsView(ApiView):
    @describe("list_projects", tag="projects", answers={200: page_of(ProjectSerializer)}, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """The projects that the caller is a member of."""
        return self.page(self.projects(), ProjectSerializer)

    @describe("create_project", tag="projects", body=NewProjectSerializer, answers={201: ProjectDetailSerializer})
    def post(self, request: Request) -> Response:
        """Make a project; the caller becomes its lead. For people, not for simulated accounts."""
        self.refuse_project_token()
        if not request.user.is_person:
            raise PermissionDenied("Only a person can make a project")
        try:
            project = create_project(created_by=request.user, **self.parsed(NewProjectSerializer))
        except BadForm as error:
            raise wrong_fields({_part_of(error): _lists(error.fields)}) from None
        except SlugTaken as error:
            raise wrong_fields({"slug": str(error)}) from None
        return Response(ProjectDetailSerializer(self.project(project.slug)).data, status=201)


class ProjectView(ApiView):
    @describe("get_project", tag="projects", answers={200: ProjectDetailSerializer}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        return Response(ProjectDetailSerializer(self.project(slug)).data)

    @describe(
        "change_project", tag="projects", body=ProjectChangesSerializer, answers={200: ProjectDetailSerializer},
        errors=[404],
    )  # fmt: skip
    def patch(self, request: Request, slug: str) -> Response:
        """Change what is given and leave the rest; `form`, `bench` and `quality` are replaced as a whole."""
        project = self.project(slug, STEERING)
        changes = self.parsed(ProjectChangesSerializer, partial=True)
        guideline = changes.pop("guideline", None)
        try:
            if changes:
                change_project(project=project, **changes)
        except BadForm as error:
            raise wrong_fields({_part_of(error): _lists(error.fields)}) from None
        if guideline is not None:
            publish_guideline(project=project, markdown=guideline, created_by=request.user)
        return Response(ProjectDetailSerializer(self.project(slug)).data)


class GuidelineReadView(ApiView):
    scope = ApiToken.Scope.ANNOTATE

    @describe(
        "read_guideline", tag="projects", body=ReadVersionSerializer, answers={200: GuidelineReadSerializer}, errors=[404]
    )
    def put(self, request: Request, slug: str) -> Response:
        """Say that you have read a version of the guideline.

        The bench asks people for it before their next task. Programs aren't stopped: each lease carries its version.
        """
        project = self.project(slug, ANNOTATING)
        version = self.parsed(ReadVersionSerializer)["version"]
        membership = project.memberships.get(user=request.user)
        try:
            read = read_guideline(membership=membership, version=version)
        except UnknownVersion as error:
            raise wrong_fields({"version": str(error)}) from None
        return Response({"read": read, "newest": project.guideline.version if project.guideline else 0})


class MembersView(ApiView):
    @describe(
        "list_members", tag="projects", answers={200: page_of(MemberSerializer)}, errors=[404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        return self.page(members_of(self.project(slug, STEERING)), MemberSerializer)

    @describe(
        "add_member", tag="projects", body=NewMemberSerializer,
        answers={201: MemberSerializer, 200: MemberSerializer}, errors=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Give a person a role: 201 for a new member, 200 where the role of one is changed.

        Languages and skills that are left out stay as they are.
        """
        project = self.project(slug, STEERING)
        member = self.parsed(NewMemberSerializer)
        user = User.objects.filter(username=member.pop("username"), is_active=True).first()
        if user is None:
            raise wrong_fields({"username": "There is no account of this name"})
        was_there = project.memberships.filter(user=user).exists()
        try:
            membership = add_member(project=project, user=user, **member)
        except LastLead as error:
            raise Refused("last_lead", str(error), status=409) from None
        except BadSkills as error:
            raise wrong_fields(error.fields) from None
        return Response(MemberSerializer(membership).data, status=200 if was_there else 201)


class MemberView(ApiView):
    @describe("change_member", tag="projects", body=KnowledgeFields, answers={200: MemberSerializer}, errors=[404])
    def patch(self, request: Request, slug: str, username: str) -> Response:
        """Change the languages or skills of a member, each as a whole: they decide which pools the person fits."""
        project = self.project(slug, STEERING)
        membership = get_object_or_404(members_of(project), user__username=username)
        membership.project = project
        try:
            change_member(membership=membership, **self.parsed(KnowledgeFields, partial=True))
        except BadSkills as error:
            raise wrong_fields(error.fields) from None
        return Response(MemberSerializer(membership).data)


class ImportThrottle(UserRateThrottle):
    scope = "import"
    rate = "60/min"


class ImportsView(ApiView):
    parser_classes = [MultiPartParser]
    throttle_classes = [ImportThrottle]
    takes_chunks = True

    @describe(
        "import_rows", tag="projects",
        body={
            **dict.fromkeys(LINES_TYPES, OpenApiTypes.BINARY),
            "multipart/form-data": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            },
        },
        parameters=[query("format", description="what a line holds", required=True, enum=list(FORMATS))],
        answers={201: ImportSerializer}, errors=[404, 429],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Take JSON lines in, from the body or a multipart file, in constant memory.

        Good rows stay even if others are refused; the same rows again add nothing.
        """
        project = self.project(slug, TRAINING)
        format = request.query_params.get("format", "")
        if format not in FORMATS:
            raise wrong_fields({"format": f"Choose from {', '.join(FORMATS)}: POST .../imports/?format=prompts"})
        if _announced_bytes(request) > MAX_IMPORT_BYTES:
            raise _too_large()
        read, filename = self._source(request)
        try:
            record = import_rows(
                project=project, format=format, lines=lines_of(read), created_by=request.user, filename=filename
            )
        except BadImport as error:
            raise wrong_fields({"format": str(error)}) from None
        return Response(ImportSerializer(record).data, status=201)

    def _source(self, request: Request) -> tuple[Callable[[int], bytes], str]:
        mime = (request.content_type or "").split(";")[0].strip().lower()
        if mime == "multipart/form-data":
            if sent_in_chunks(request):
                raise length_required()
            if unknown := sorted(set(request.data) - {"file"}):
                raise wrong_fields({unknown[0]: "This field is not known here."})
            if "file" not in request.FILES:
                raise wrong_fields({"file": "Send the rows as a file under this name"})
            return request.FILES["file"].read, request.FILES["file"].name
        if mime and mime not in LINES_TYPES:
            raise UnsupportedMediaType(mime)
        environ = getattr(request, "environ", {})
        if sent_in_chunks(request) and environ.get("wsgi.input_terminated"):
            return environ["wsgi.input"].read, ""
        return request._request.read, ""


def lines_of(read: Callable[[int], bytes], *, max_bytes: int | None = None) -> Iterator[bytes]:
    """Lines of a stream, never holding more than one; an endless line is cut just past what the importer takes.

    Raises Refused (413) once more than `max_bytes` have come.
    """
    max_bytes = MAX_IMPORT_BYTES if max_bytes is None else max_bytes
    waiting = b""
    total = 0
    cutting = False  # inside a line whose beginning was given out already
    while chunk := read(CHUNK_BYTES):
        total += len(chunk)
        if total > max_bytes:
            raise _too_large()
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if not cutting:
                yield waiting + line + b"\n"
            waiting, cutting = b"", False
        if not cutting:
            waiting += rest
            if len(waiting) > MAX_LINE_BYTES:
                yield waiting
                waiting, cutting = b"", True
    if waiting:
        yield waiting


def _announced_bytes(request: Request) -> int:
    text = str(request.META.get("CONTENT_LENGTH") or "0")
    return int(text) if text.isdigit() and len(text) < 19 else 0


def _too_large() -> Refused:
    return Refused(
        "request_too_large",
        f"At most {MAX_IMPORT_BYTES:,} bytes in one import. Rows before that are kept; send the rest in parts",
        status=413,
    )


def _part_of(error: BadForm) -> str:
    return "bench" if isinstance(error, BadBench) else "quality" if isinstance(error, BadQuality) else "form"


def _lists(fields: dict[str, str]) -> dict[str, Any]:
    return {key: [value] for key, value in fields.items()}
