from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from labeling.accounts.roles import READING, Role
from labeling.projects.models import Membership, Project
from labeling.projects.quality_settings import quality_of
from labeling.projects.selectors import current_guideline
from labeling.projects.skills import MAX_SKILL, MOST
from labeling.web.api import Flag, Number, StrictSerializer, Text, Whole

MAX_OVERLAP = 100
MAX_LEASE_SECONDS = 24 * 3600
MAX_GUIDELINE = 100_000


class ProjectFields(StrictSerializer):
    """What both a new project and a change of one may say."""

    name = Text(max_length=120)
    description = Text(max_length=10_000, allow_blank=True, required=False)
    form = serializers.DictField(required=False, help_text="the feedback form; parts left out get their default")
    bench = serializers.DictField(
        required=False, help_text="how the bench shows tasks and cares for people; parts left out get their default"
    )
    quality = serializers.DictField(
        required=False, help_text="how labels are checked; parts left out get their default"
    )
    overlap = Whole(min_value=1, max_value=MAX_OVERLAP, required=False)
    lease_seconds = Whole(min_value=30, max_value=MAX_LEASE_SECONDS, required=False)
    eval_share = Number(min_value=0, max_value=0.9, required=False)
    guideline = Text(
        max_length=MAX_GUIDELINE, required=False, help_text="Markdown; a change publishes the next version"
    )


class NewProjectSerializer(ProjectFields):
    slug = serializers.SlugField(max_length=50)


class ProjectChangesSerializer(ProjectFields):
    state = serializers.ChoiceField(Project.State.choices, required=False)
    allows_revision = Flag(required=False)


class ReadVersionSerializer(StrictSerializer):
    version = Whole(min_value=1, max_value=2**31 - 1)


class GuidelineReadSerializer(serializers.Serializer):
    read = serializers.IntegerField(help_text="the newest version that you have read")
    newest = serializers.IntegerField()


class GuidelineSerializer(serializers.Serializer):
    version = serializers.IntegerField()
    markdown = serializers.CharField()


class ProjectSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    slug = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    state = serializers.ChoiceField(Project.State.choices)
    role = serializers.ChoiceField(Role.choices, help_text="the caller's")
    form = serializers.DictField()
    bench = serializers.DictField()
    quality = serializers.SerializerMethodField()
    overlap = serializers.IntegerField()
    lease_seconds = serializers.IntegerField()
    eval_share = serializers.FloatField()
    allows_revision = serializers.BooleanField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(serializers.DictField(allow_null=True, help_text="null for annotators: how they are checked"))
    def get_quality(self, project: Project) -> dict[str, Any] | None:
        return quality_of(project.quality) if project.role in READING else None  # type: ignore[attr-defined]


class ProjectDetailSerializer(ProjectSerializer):
    guideline = GuidelineSerializer(allow_null=True)

    def to_representation(self, project: Project) -> dict[str, Any]:
        project.guideline = current_guideline(project)  # type: ignore[attr-defined]
        return super().to_representation(project)


class KnowledgeFields(StrictSerializer):
    """What people know, or need to."""

    languages = serializers.ListField(
        child=Text(max_length=30), max_length=MOST, required=False, help_text="codes such as de, en-GB"
    )
    skills = serializers.ListField(
        child=Text(max_length=2 * MAX_SKILL), max_length=MOST, required=False, help_text="words of the project's, such as law"
    )


class NewMemberSerializer(KnowledgeFields):
    username = Text(max_length=150)
    role = serializers.ChoiceField(Role.choices)


class MemberSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    username = serializers.CharField(source="user.username")
    kind = serializers.CharField(source="user.kind")
    role = serializers.ChoiceField(Role.choices)
    pseudonym = serializers.CharField(help_text="the name in exports")
    state = serializers.ChoiceField(Membership.State.choices, help_text="only who is active is handed tasks of the queue")
    state_reason = serializers.CharField()
    languages = serializers.ListField(child=serializers.CharField())
    skills = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
