from django.apps import AppConfig


class QualityConfig(AppConfig):
    name = "labeling.quality"
    label = "quality"

    def ready(self) -> None:
        from labeling.annotation.checks import OnGold
        from labeling.quality.services import gold_answered, told

        OnGold.answered, OnGold.told = staticmethod(gold_answered), staticmethod(told)
