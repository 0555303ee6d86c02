"""Included by labeling.projects.urls, within its namespace."""

from django.urls import path

from labeling.quality import console, gold_console

urlpatterns = [
    path("tasks/", console.tasks, name="tasks"),
    path("quality/", console.quality, name="quality"),
    path("gold/", gold_console.gold, name="gold"),
    path("gold/new/", gold_console.new_gold, name="new_gold"),
    path("gold/<int:gold_id>/", gold_console.gold_task, name="gold_task"),
]
