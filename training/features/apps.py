from django.apps import AppConfig


class FeaturesConfig(AppConfig):
    name = "training.features"
    label = "features"

    def ready(self) -> None:
        from training.features.kinds import PARTS_OF_RUNS
        from training.runs.parts import PARTS

        PARTS.update(PARTS_OF_RUNS)
