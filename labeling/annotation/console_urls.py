"""Included by labeling.projects.urls, within its namespace."""

from django.urls import path

from labeling.annotation import console, console_people

urlpatterns = [
    path("new/preview/", console.new_preview, name="new_preview"),
    path("<slug:slug>/preview/", console.preview, name="preview"),
    path("<slug:slug>/people/<int:user_id>/", console_people.person, name="person"),
    path("<slug:slug>/reports/", console.reports, name="reports"),
]
