from django.contrib import admin

from labeling.projects.models import Completion, Guideline, Import, Membership, Project, Prompt
from labeling.web.admin_site import ReadOnlyAdmin


class MembershipInline(admin.TabularInline):
    model = Membership
    fields = readonly_fields = ("user", "role", "created_at")
    extra = 0
    can_delete = False

    def has_add_permission(self, request, obj=None) -> bool:
        return False


@admin.register(Project)
class ProjectAdmin(ReadOnlyAdmin):
    list_display = ("slug", "name", "state", "overlap", "lease_seconds", "created_at")
    list_filter = ("state",)
    search_fields = ("slug", "name")
    inlines = (MembershipInline,)


@admin.register(Guideline)
class GuidelineAdmin(ReadOnlyAdmin):
    list_display = ("project", "version", "created_by", "created_at")
    list_select_related = ("project", "created_by")
    list_filter = ("project",)


@admin.register(Import)
class ImportAdmin(ReadOnlyAdmin):
    list_display = ("pk", "project", "format", "n_taken", "n_duplicates", "n_rejected", "created_by", "created_at")
    list_select_related = ("project", "created_by")
    list_filter = ("project", "format")


@admin.register(Prompt)
class PromptAdmin(ReadOnlyAdmin):
    list_display = ("pk", "project", "external_id", "licence", "source", "created_at")
    list_select_related = ("project",)
    list_filter = ("project",)
    search_fields = ("external_id", "content_hash")
    show_full_result_count = False
    raw_id_fields = ("batch",)


@admin.register(Completion)
class CompletionAdmin(ReadOnlyAdmin):
    list_display = ("pk", "prompt_id", "model_key", "created_at")
    search_fields = ("model_key", "content_hash")
    show_full_result_count = False
    raw_id_fields = ("prompt", "corrects", "batch")
