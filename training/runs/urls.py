from django.urls import path

from training.runs import console, console_explain, console_new, disk_console, report_console

app_name = "runs"
urlpatterns = [
    path("", console.runs, name="list"),
    path("new/", console_new.new_run, name="new"),
    path("estimate/", console_new.estimate, name="estimate"),
    path("explain/", console_explain.explain, name="explain"),
    path("compare/", console.compare, name="compare"),
    path("disk/", disk_console.room, name="disk"),
    path("<int:run_id>/", console.run, name="detail"),
    path("<int:run_id>/report/", report_console.report, name="report"),
    path("<int:run_id>/events/", console.events, name="events"),
    path("<int:run_id>/log/", disk_console.log, name="log"),
    path("<int:run_id>/events.jsonl", disk_console.events_file, name="events_file"),
    path("<int:run_id>/checkpoints/delete/", disk_console.delete_checkpoints, name="delete_checkpoints"),
    path("<int:run_id>/cancel/", console.cancel, name="cancel"),
    path("<int:run_id>/resume/", console.resume, name="resume"),
]
