from django.apps import AppConfig


class AnnotationConfig(AppConfig):
    name = "labeling.annotation"
    label = "annotation"
