"""Webhooks over REST, for leads: whoever sets one up sends the project's news out of the site."""

from datetime import timedelta

from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import STEERING
from labeling.projects.api_access import ApiView
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, wrong_fields
from labeling.webhooks.errors import BadWebhook, NotNow, TooManyTests
from labeling.webhooks.models import Webhook
from labeling.webhooks.selectors import deliveries_seen_by, webhooks_seen_by
from labeling.webhooks.serializers import (
    DeliverySerializer,
    NewWebhookSerializer,
    RotationSerializer,
    WebhookChangesSerializer,
    WebhookSerializer,
    WebhookWithSecretSerializer,
)
from labeling.webhooks.services import (
    change_webhook,
    create_webhook,
    delete_webhook,
    redeliver,
    rotate_secret,
    send_test,
)


class WebhooksView(ApiView):
    @describe(
        "list_webhooks", tag="webhooks", answers={200: page_of(WebhookSerializer)}, errors=[404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """The addresses that are told of the project's events."""
        return self.page(Webhook.objects.filter(project=self.project(slug, STEERING)), WebhookSerializer)

    @describe(
        "create_webhook", tag="webhooks", body=NewWebhookSerializer, answers={201: WebhookWithSecretSerializer},
        errors=[404],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Tell an address of these events from now on. The secret is in this answer alone."""
        project = self.project(slug, STEERING)
        sent = self.parsed(NewWebhookSerializer)
        try:
            webhook, secret = create_webhook(project=project, created_by=request.user, **sent)
        except BadWebhook as error:
            raise wrong_fields(error.fields) from None
        return Response(WebhookWithSecretSerializer(webhook, context={"secret": secret}).data, status=201)


class OneWebhookView(ApiView):
    def webhook(self, webhook_id: str) -> Webhook:
        return self.find(webhooks_seen_by(self.request.user), webhook_id, STEERING)


class WebhookView(OneWebhookView):
    @describe("get_webhook", tag="webhooks", answers={200: WebhookSerializer}, errors=[404])
    def get(self, request: Request, webhook_id: str) -> Response:
        return Response(WebhookSerializer(self.webhook(webhook_id)).data)

    @describe(
        "change_webhook", tag="webhooks", body=WebhookChangesSerializer, answers={200: WebhookSerializer}, errors=[404]
    )
    def patch(self, request: Request, webhook_id: str) -> Response:
        """Change it, pause it, or make it active again. While it isn't active, nothing is kept for it."""
        webhook = self.webhook(webhook_id)
        try:
            changed = change_webhook(webhook=webhook, **self.parsed(WebhookChangesSerializer, partial=True))
        except BadWebhook as error:
            raise wrong_fields(error.fields) from None
        return Response(WebhookSerializer(changed).data)

    @describe("delete_webhook", tag="webhooks", answers={204: None}, errors=[404])
    def delete(self, request: Request, webhook_id: str) -> Response:
        """Delete it with its log."""
        delete_webhook(webhook=self.webhook(webhook_id))
        return Response(status=204)


class RotateView(OneWebhookView):
    @describe(
        "rotate_webhook_secret", tag="webhooks", body=RotationSerializer, answers={200: WebhookWithSecretSerializer},
        errors=[404],
    )  # fmt: skip
    def post(self, request: Request, webhook_id: str) -> Response:
        """Make a new secret, which is in this answer alone. For a while messages are signed by both."""
        webhook = self.webhook(webhook_id)
        keep = timedelta(hours=self.parsed(RotationSerializer)["keep_hours"])
        secret = rotate_secret(webhook=webhook, keep=keep)
        return Response(WebhookWithSecretSerializer(webhook, context={"secret": secret}).data)


class TestView(OneWebhookView):
    @describe("test_webhook", tag="webhooks", answers={200: DeliverySerializer}, errors=[404, 429])
    def post(self, request: Request, webhook_id: str) -> Response:
        """Send a message of the event `test` now, once. The answer, within 5 s or so, says what came of it."""
        try:
            return Response(DeliverySerializer(send_test(webhook=self.webhook(webhook_id))).data)
        except TooManyTests as error:
            raise Refused(error.code, str(error), status=429, wait=60) from None


class DeliveriesView(OneWebhookView):
    @describe(
        "list_deliveries", tag="webhooks", answers={200: page_of(DeliverySerializer)}, errors=[404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, webhook_id: str) -> Response:
        """The messages of the last month, newest first, each with its tries."""
        return self.page(self.webhook(webhook_id).deliveries.all(), DeliverySerializer)


class RedeliverView(ApiView):
    @describe("redeliver", tag="webhooks", answers={202: DeliverySerializer}, errors=[404, 409])
    def post(self, request: Request, delivery_id: str) -> Response:
        """Send a message again, with its own id and body and all its tries before it."""
        visible = deliveries_seen_by(request.user)
        delivery = self.find(visible, delivery_id, STEERING, project="webhook__project")
        try:
            return Response(DeliverySerializer(redeliver(delivery=delivery)).data, status=202)
        except NotNow as error:
            raise Refused(error.code, str(error), status=409) from None
