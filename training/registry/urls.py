from django.urls import path

from training.registry import console

app_name = "registry"
urlpatterns = [
    path("", console.models, name="list"),
    path("<int:model_id>/", console.model, name="detail"),
]
