from django.contrib import admin

from labeling.web.admin_site import ReadOnlyAdmin
from training.features.models import Encoder


@admin.register(Encoder)
class EncoderAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "model", "layer", "pooling", "is_active", "created_at")
    list_select_related = ("project", "model")
    list_filter = ("is_active", "project")
