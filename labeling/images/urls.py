from django.urls import path

from labeling.images import console, views

app_name = "images"
urlpatterns = [
    path("images/<str:image_id>/", views.show, name="show"),
    path("projects/<slug:slug>/images/", console.images, name="list"),
]
