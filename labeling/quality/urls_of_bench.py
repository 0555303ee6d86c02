"""Beside the bench, below /projects/<slug>/bench/: what annotators see of their own work."""

from django.urls import path

from labeling.quality import views

app_name = "quality"
urlpatterns = [path("figures/", views.own_figures, name="own_figures")]
