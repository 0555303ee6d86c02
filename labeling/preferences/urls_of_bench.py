"""Beside the bench, below /projects/<slug>/bench/: what annotators say of the use of their judgements."""

from django.urls import path

from labeling.preferences import views

app_name = "preferences_bench"
urlpatterns = [path("consent/", views.consent, name="consent")]
