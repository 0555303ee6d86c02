"""Pages for leads about webhooks: the list, a new one, and one with its log. Nobody else may open them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import STEERING
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project
from labeling.webhooks.errors import BadWebhook, NotNow, TooManyTests
from labeling.webhooks.forms import WebhookForm
from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.selectors import with_newest_delivery
from labeling.webhooks.services import (
    change_webhook,
    create_webhook,
    delete_webhook,
    redeliver,
    rotate_secret,
    send_test,
)

KEEP_OLD_SECRET = timedelta(hours=24)
LOG_ROWS = 30

# What the words of a try mean to a person.
ERRORS = {
    "refused_address": "This site may not send there",
    "timeout": "No answer within 5 seconds",
    "no_such_host": "There is no host of this name",
    "no_connection": "Nothing listens there",
    "tls": "The certificate or TLS is wrong",
    "broken_off": "The connection broke off",
    "redirected": "It redirects, which is not followed",
    "refused": "It answered with an error",
    "gone": "It says that it is gone",
    "sender_lost": "The site's worker stopped in the middle",
}


@require_safe
@console_page(to_open=STEERING)
def webhooks(request: HttpRequest, project: Project) -> HttpResponse:
    page = keyset_page(request, with_newest_delivery(Webhook.objects.filter(project=project)))
    return show(request, "console/webhooks/list.html", project, page=page)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_open=STEERING, to_change=STEERING)
def new_webhook(request: HttpRequest, project: Project) -> HttpResponse:
    form = WebhookForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            webhook, secret = create_webhook(project=project, created_by=request.user, **form.cleaned_data)
        except BadWebhook as error:
            add_errors(form, error.fields)
        else:
            # Not by way of a redirect: the secret would have to be kept somewhere until the next page.
            return _page(request, webhook, secret=secret, is_new=True)
    return show(request, "console/webhooks/new.html", project, form=form, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_open=STEERING, to_change=STEERING)
def webhook(request: HttpRequest, project: Project, webhook_id: int) -> HttpResponse:
    """One webhook with its log: change, test, pause, delete it, or send a message again."""
    found = get_object_or_404(Webhook.objects.select_related("project"), project=project, pk=webhook_id)
    if request.method == "POST":
        return ACTIONS.get(request.POST.get("do", ""), _save)(request, found)
    return _page(request, found)


def _page(
    request: HttpRequest, webhook: Webhook, *, form: WebhookForm | None = None, status: int = 200, **context: Any
) -> HttpResponse:
    page = keyset_page(request, webhook.deliveries.all(), LOG_ROWS)
    for delivery in page["rows"]:
        _explain(delivery)
    return show(
        request, "console/webhooks/detail.html", webhook.project, webhook=webhook, page=page, status=status,
        form=form or WebhookForm(initial=WebhookForm.initial_of(webhook)), **context,
    )  # fmt: skip


def _explain(delivery: Delivery) -> Delivery:
    """For the template: the tries with times and words, the newest first and apart."""
    told = [{**made, "at": parse_datetime(made["at"]), "says": ERRORS.get(made["error"], "")} for made in delivery.tries]
    delivery.newest, delivery.earlier = (told[-1] if told else None), told[-2::-1]  # type: ignore[attr-defined]
    return delivery


def _save(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            change_webhook(webhook=webhook, **form.cleaned_data)
        except BadWebhook as error:
            add_errors(form, error.fields)
        else:
            messages.success(request, "Saved.")
            return _back(webhook)
    return _page(request, webhook, form=form, status=422)


def _test(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    """The outcome stands beside the button at once."""
    try:
        return _page(request, webhook, tested=_explain(send_test(webhook=webhook)))
    except TooManyTests as error:
        messages.warning(request, f"{error}.")
        return _back(webhook)


def _redeliver(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    number = request.POST.get("delivery", "")
    wanted = int(number) if number.isdigit() and len(number) < 19 else 0
    delivery = get_object_or_404(webhook.deliveries.select_related("webhook"), pk=wanted)
    try:
        redeliver(delivery=delivery)
    except NotNow as error:
        messages.warning(request, f"{error}.")
    else:
        messages.success(request, "It is sent again within seconds.")
    return _back(webhook)


def _set_state(state: Webhook.State) -> Callable[[HttpRequest, Webhook], HttpResponse]:
    def change(request: HttpRequest, webhook: Webhook) -> HttpResponse:
        change_webhook(webhook=webhook, state=state)
        return _back(webhook)

    return change


def _rotate(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    return _page(request, webhook, secret=rotate_secret(webhook=webhook, keep=KEEP_OLD_SECRET))


def _delete(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    slug = webhook.project.slug
    delete_webhook(webhook=webhook)
    messages.success(request, "The webhook is deleted.")
    return redirect("projects:webhooks", slug)


def _back(webhook: Webhook) -> HttpResponse:
    return redirect("projects:webhook", webhook.project.slug, webhook.pk)


ACTIONS = {
    "test": _test, "redeliver": _redeliver, "rotate": _rotate, "delete": _delete,
    "pause": _set_state(Webhook.State.PAUSED), "resume": _set_state(Webhook.State.ACTIVE),
}  # fmt: skip
