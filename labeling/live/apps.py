from django.apps import AppConfig


class LiveConfig(AppConfig):
    name = "labeling.live"
    label = "live"
