from django.contrib import admin

from labeling.web.admin_site import ReadOnlyAdmin
from training.loop.models import Iteration


@admin.register(Iteration)
class IterationAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "project", "stage", "policy_before", "policy_after", "snapshot", "stage_since")
    list_select_related = ("project", "policy_before", "policy_after", "snapshot")
    list_filter = ("stage", "project")
