from django.urls import path

from training.features import console

app_name = "features"
urlpatterns = [
    path("", console.features, name="detail"),
    path("measure/", console.measure, name="measure"),
]
