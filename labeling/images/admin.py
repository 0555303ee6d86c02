from django.contrib import admin

from labeling.images.models import Image
from labeling.web.admin_site import ReadOnlyAdmin


@admin.register(Image)
class ImageAdmin(ReadOnlyAdmin):
    list_display = ("public_id", "project", "name", "content_type", "width", "height", "n_bytes", "created_at")
    list_select_related = ("project",)
    list_filter = ("project",)
    search_fields = ("public_id", "name")
