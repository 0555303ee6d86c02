from django.urls import path

from training.endpoints import console

app_name = "endpoints"
urlpatterns = [
    path("", console.endpoints, name="list"),
    path("new/", console.new_endpoint, name="new"),
    path("<int:endpoint_id>/", console.endpoint, name="detail"),
]
