"""Included by labeling.projects.urls, within its namespace."""

from django.urls import path

from labeling.quality import console

urlpatterns = [
    path("tasks/", console.tasks, name="tasks"),
    path("quality/", console.quality, name="quality"),
    path("quality/<slug:pseudonym>/", console.person, name="quality_person"),
]
