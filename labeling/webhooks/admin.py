from django.contrib import admin

from labeling.web.admin_site import ReadOnlyAdmin
from labeling.webhooks.models import Delivery, Webhook


@admin.register(Webhook)
class WebhookAdmin(ReadOnlyAdmin):
    list_display = ("pk", "project", "url", "state", "failing_since", "created_at")
    list_select_related = ("project",)
    list_filter = ("state", "project")
    exclude = ("salt", "old_salt")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    list_display = ("message_id", "webhook_id", "event", "state", "n_tries", "created_at")
    list_filter = ("state", "event")
    exclude = ("claim",)
    show_full_result_count = False
