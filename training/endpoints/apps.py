from django.apps import AppConfig


class EndpointsConfig(AppConfig):
    name = "training.endpoints"
    label = "endpoints"
