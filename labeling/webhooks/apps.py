from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "labeling.webhooks"
    label = "webhooks"
