from django.apps import AppConfig


class ImportsConfig(AppConfig):
    name = "labeling.imports"
    label = "imports"
