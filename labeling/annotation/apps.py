from django.apps import AppConfig


class AnnotationConfig(AppConfig):
    name = "labeling.annotation"
    label = "annotation"

    def ready(self) -> None:
        from labeling.annotation.services.pools import refit_members
        from labeling.projects.fitting import OnMembers

        OnMembers.changed = staticmethod(refit_members)
