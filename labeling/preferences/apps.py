from django.apps import AppConfig


class PreferencesConfig(AppConfig):
    name = "labeling.preferences"
    label = "preferences"
