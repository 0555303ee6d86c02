"""Included in `projects`, whose name they share: the console's pages are one family."""

from django.urls import path

from labeling.webhooks import console

urlpatterns = [
    path("webhooks/", console.webhooks, name="webhooks"),
    path("webhooks/new/", console.new_webhook, name="new_webhook"),
    path("webhooks/<int:webhook_id>/", console.webhook, name="webhook"),
]
