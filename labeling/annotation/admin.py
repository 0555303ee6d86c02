from django.contrib import admin

from labeling.annotation.models import Judgement, Lease, Slot, Task
from labeling.web.admin_site import ReadOnlyAdmin


class SlotInline(admin.TabularInline):
    model = Slot
    fields = readonly_fields = ("number", "state", "holder", "expires_at")
    extra = 0
    can_delete = False

    def has_add_permission(self, request, obj=None) -> bool:
        return False


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    list_display = ("public_id", "project", "kind", "purpose", "state", "n_judged", "overlap", "iteration")
    list_select_related = ("project",)
    list_filter = ("state", "purpose", "project")
    search_fields = ("public_id",)
    show_full_result_count = False
    inlines = (SlotInline,)


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ("pk", "task_id", "annotator", "state", "expires_at", "created_at")
    list_select_related = ("annotator",)
    list_filter = ("state",)
    search_fields = ("annotator__username",)
    show_full_result_count = False
    exclude = ("draft",)


@admin.register(Judgement)
class JudgementAdmin(ReadOnlyAdmin):
    """Append-only for everybody: the database refuses changes, too."""

    list_display = ("pk", "project", "task_id", "annotator", "annotator_kind", "is_surplus", "seconds", "created_at")
    list_select_related = ("project", "annotator")
    list_filter = ("annotator_kind", "project")
    search_fields = ("annotator__username", "submission_key")
    show_full_result_count = False

    @admin.display(boolean=True, description="surplus")
    def is_surplus(self, judgement: Judgement) -> bool:
        return judgement.is_surplus
