"""Included by labeling.projects.urls, within its namespace."""

from django.urls import path

from labeling.quality import adjudication_console, console, figures_console, gold_console

urlpatterns = [
    path("tasks/", console.tasks, name="tasks"),
    path("quality/", figures_console.quality, name="quality"),
    path("quality/<slug:pseudonym>/", figures_console.person, name="quality_person"),
    path("adjudication/", adjudication_console.queue, name="adjudication"),
    path("adjudication/mode/", adjudication_console.change_mode, name="adjudication_mode"),
    path("adjudication/<str:task_id>/", adjudication_console.one_task, name="adjudicate"),
    path("guidelines/notes/<int:adjudication_id>/", adjudication_console.tick_off_note, name="tick_off_note"),
    path("gold/", gold_console.gold, name="gold"),
    path("gold/new/", gold_console.new_gold, name="new_gold"),
    path("gold/<int:gold_id>/", gold_console.gold_task, name="gold_task"),
]
