"""Pausing a member over REST, and letting them work again."""

from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import STEERING
from labeling.annotation.services import (
    pause_member,
    reinstate_member,
    restore_judgements,
    set_aside_judgements,
)
from labeling.projects.api_access import ApiView
from labeling.projects.models import Membership
from labeling.projects.serializers import MemberSerializer
from labeling.web.api import Flag, StrictSerializer, Text, describe, wrong_fields


class PauseSerializer(StrictSerializer):
    reason = Text(max_length=300, help_text="shown to the person")


class ReinstateSerializer(StrictSerializer):
    to_qualify = Flag(default=False, help_text="begin with another qualification round")
    restore = Flag(default=False, help_text="let what was set aside count again, where nobody judged it since")


class SetAsideSerializer(StrictSerializer):
    reason = Text(max_length=300)
    since = serializers.DateTimeField(required=False, help_text="judged at this time or later; default: all")
    until = serializers.DateTimeField(required=False, help_text="judged at this time or before")


class NSetAsideSerializer(serializers.Serializer):
    set_aside = serializers.IntegerField()


class ReinstatedSerializer(MemberSerializer):
    restored = serializers.IntegerField(help_text="judgements that count again")
    kept_aside = serializers.IntegerField(help_text="judgements that somebody else judges or has judged since")


class MemberActionView(ApiView):
    """Base of what a lead does with one member."""

    def member(self, slug: str, username: str) -> Membership:
        project = self.project(slug, STEERING)
        found = project.memberships.select_related("project", "user").filter(user__username=username).first()
        if found is None:
            raise Http404
        return found


class PauseMemberView(MemberActionView):
    @describe("pause_member", tag="projects", body=PauseSerializer, answers={200: MemberSerializer}, errors=[404])
    def post(self, request: Request, slug: str, username: str) -> Response:
        """Hand the person no more tasks; what they hold goes back to the queue. Again, it changes nothing."""
        member = self.member(slug, username)
        pause_member(membership=member, **self.parsed(PauseSerializer))
        return Response(MemberSerializer(member).data)


class ReinstateMemberView(MemberActionView):
    @describe(
        "reinstate_member", tag="projects", body=ReinstateSerializer, answers={200: ReinstatedSerializer}, errors=[404]
    )
    def post(self, request: Request, slug: str, username: str) -> Response:
        """Let the person work again; earlier gold answers don't pause them again."""
        member, wanted = self.member(slug, username), self.parsed(ReinstateSerializer)
        reinstate_member(membership=member, to_qualify=wanted["to_qualify"])
        restored, kept = 0, 0
        if wanted["restore"]:
            restored, kept = restore_judgements(project=member.project, annotator=member.user, by=request.user)
        return Response({**MemberSerializer(member).data, "restored": restored, "kept_aside": kept})


class SetAsideView(MemberActionView):
    @describe(
        "set_aside_judgements", tag="projects", body=SetAsideSerializer, answers={200: NSetAsideSerializer},
        errors=[404],
    )  # fmt: skip
    def post(self, request: Request, slug: str, username: str) -> Response:
        """Let the person's judgements of a time not count any more, and ask others in their place. Counts new ones."""
        member, wanted = self.member(slug, username), self.parsed(SetAsideSerializer)
        if "since" in wanted and "until" in wanted and wanted["since"] > wanted["until"]:
            raise wrong_fields({"until": "lies before since"})
        n = set_aside_judgements(project=member.project, annotator=member.user, by=request.user, **wanted)
        return Response({"set_aside": n})
