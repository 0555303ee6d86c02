from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "training.registry"
    label = "registry"
