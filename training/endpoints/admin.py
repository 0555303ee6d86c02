from django.contrib import admin

from labeling.web.admin_site import ReadOnlyAdmin
from training.endpoints.models import Endpoint


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin):
    list_display = ("name", "project", "model", "url", "served_model", "is_active", "created_at")
    list_select_related = ("project", "model")
    list_filter = ("is_active", "project")
    exclude = ("key_name",)
