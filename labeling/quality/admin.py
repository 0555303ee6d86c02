from django.contrib import admin

from labeling.quality.models import Adjudication, Contradiction, Disagreement
from labeling.web.admin_site import ReadOnlyAdmin


@admin.register(Adjudication)
class AdjudicationAdmin(ReadOnlyAdmin):
    """Append-only for everybody: the database refuses changes, too."""

    list_display = ("pk", "project", "task_id", "by", "outcome", "blind", "becomes_gold", "created_at")
    list_select_related = ("project", "by")
    list_filter = ("outcome", "blind", "project")
    show_full_result_count = False


@admin.register(Disagreement)
class DisagreementAdmin(ReadOnlyAdmin):
    list_display = ("task_id", "project", "n_people", "share", "spread", "contradiction", "urgency", "looked_at")
    list_select_related = ("project",)
    list_filter = ("project",)
    show_full_result_count = False


@admin.register(Contradiction)
class ContradictionAdmin(ReadOnlyAdmin):
    list_display = ("task_id", "project", "model_key", "is_calibrated", "created_at")
    list_select_related = ("project",)
    list_filter = ("is_calibrated", "project")
    show_full_result_count = False
