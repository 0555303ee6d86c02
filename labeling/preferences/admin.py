from django.contrib import admin

from labeling.preferences.models import Freeze, Snapshot, Withdrawal
from labeling.web.admin_site import ReadOnlyAdmin


@admin.register(Snapshot)
class SnapshotAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "project", "name", "n_judgements", "n_pairs", "content_hash", "created_at")
    list_select_related = ("project",)
    list_filter = ("project",)
    search_fields = ("content_hash", "name")


@admin.register(Freeze)
class FreezeAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "project", "state", "snapshot", "n_done", "n_total", "problem", "created_at")
    list_select_related = ("project", "snapshot")
    list_filter = ("state", "project")


@admin.register(Withdrawal)
class WithdrawalAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "project", "annotator", "prompt", "reason", "by", "at", "undone_at")
    list_select_related = ("project", "annotator", "prompt", "by")
    list_filter = ("project",)
