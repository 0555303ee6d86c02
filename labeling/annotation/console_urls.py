"""Included by labeling.projects.urls, within its namespace."""

from django.urls import path

from labeling.annotation import console

urlpatterns = [
    path("new/preview/", console.new_preview, name="new_preview"),
    path("<slug:slug>/preview/", console.preview, name="preview"),
    path("<slug:slug>/reports/", console.reports, name="reports"),
]
