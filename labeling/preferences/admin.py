from django.contrib import admin

from labeling.preferences.models import Snapshot
from labeling.web.admin_site import ReadOnlyAdmin


@admin.register(Snapshot)
class SnapshotAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "project", "name", "n_judgements", "n_pairs", "content_hash", "created_at")
    list_select_related = ("project",)
    list_filter = ("project",)
    search_fields = ("content_hash", "name")
