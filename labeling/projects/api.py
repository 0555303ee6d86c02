"""Projects and their members."""

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.models import ApiToken, User
from labeling.accounts.roles import ANNOTATING, STEERING
from labeling.projects.api_access import ApiView
from labeling.projects.errors import (
    BadBench,
    BadForm,
    BadQuality,
    BadSkills,
    LastLead,
    SlugTaken,
    UnknownVersion,
)
from labeling.projects.selectors import members_of
from labeling.projects.serializers import (
    GuidelineReadSerializer,
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
    page_of,
    wrong_fields,
)


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


def _part_of(error: BadForm) -> str:
    return "bench" if isinstance(error, BadBench) else "quality" if isinstance(error, BadQuality) else "form"


def _lists(fields: dict[str, str]) -> dict[str, Any]:
    return {key: [value] for key, value in fields.items()}
