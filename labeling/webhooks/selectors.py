from django.db.models import OuterRef, QuerySet, Subquery

from labeling.accounts.models import User
from labeling.accounts.roles import STEERING
from labeling.projects.models import Project
from labeling.webhooks.models import Delivery, Webhook


def webhooks_seen_by(user: User) -> QuerySet[Webhook]:
    """Those of the projects that the person leads: addresses can hold secrets, so nobody else sees them."""
    led = Project.objects.filter(memberships__user=user, memberships__role__in=STEERING)
    return Webhook.objects.filter(project__in=led).select_related("project")


def deliveries_seen_by(user: User) -> QuerySet[Delivery]:
    return Delivery.objects.filter(webhook__in=webhooks_seen_by(user)).select_related("webhook__project")


def with_newest_delivery(webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Each with the state and time of its newest message, as `newest_state` and `newest_at`."""
    newest = Delivery.objects.filter(webhook=OuterRef("pk")).order_by("-pk")
    return webhooks.annotate(
        newest_state=Subquery(newest.values("state")[:1]), newest_at=Subquery(newest.values("created_at")[:1])
    )


def webhooks_switched_off(project: Project) -> QuerySet[Webhook]:
    """Those that leads should look at."""
    return Webhook.objects.filter(project=project, state=Webhook.State.DISABLED)
