from django.contrib import admin

from labeling.web.admin_site import ReadOnlyAdmin
from training.registry.models import ModelVersion, StageChange


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ("key", "kind", "stage", "project", "is_adapter", "licence", "created_at")
    list_select_related = ("project",)
    list_filter = ("kind", "stage", "project")
    search_fields = ("key",)


@admin.register(StageChange)
class StageChangeAdmin(ReadOnlyAdmin):
    list_display = ("model", "from_stage", "to_stage", "created_by", "created_at")
    list_select_related = ("model", "created_by")
