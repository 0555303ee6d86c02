from django.contrib import admin

from labeling.web.admin_site import ReadOnlyAdmin
from training.runs.models import Machine, Run


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = (
        "pk", "project", "kind", "state", "progress", "attempts", "owner", "epoch", "heartbeat_at", "created_at",
    )  # fmt: skip
    list_select_related = ("project",)
    list_filter = ("state", "kind", "project")
    search_fields = ("owner", "error")


@admin.register(Machine)
class MachineAdmin(ReadOnlyAdmin):
    list_display = ("name", "measured_at", "seen_at")
