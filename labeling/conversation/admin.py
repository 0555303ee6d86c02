from django.contrib import admin

from labeling.conversation.models import Conversation, ConversationSettings, Turn
from labeling.web.admin_site import ReadOnlyAdmin


@admin.register(ConversationSettings)
class ConversationSettingsAdmin(ReadOnlyAdmin):
    list_display = ("project", "is_on", "max_turns", "opening", "changed_at")
    list_select_related = ("project",)


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    list_display = ("public_id", "project", "annotator", "state", "created_at", "ended_at")
    list_select_related = ("project", "annotator")
    list_filter = ("state", "project")


@admin.register(Turn)
class TurnAdmin(ReadOnlyAdmin):
    list_display = ("pk", "conversation", "number", "attempt", "state", "problem", "owner", "heartbeat_at")
    list_select_related = ("conversation",)
    list_filter = ("state", "problem")
