from django.urls import include, path

from labeling.web import views

urlpatterns = [
    path("", include("labeling.annotation.urls_of_home")),
    path("language/<str:language>.js", views.catalogue, name="catalogue"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
]
