from django.apps import AppConfig


class LoopConfig(AppConfig):
    name = "training.loop"
    label = "loop"
