from django.urls import path

from training.runs import console

app_name = "runs"
urlpatterns = [
    path("", console.runs, name="list"),
    path("new/", console.new_run, name="new"),
    path("<int:run_id>/", console.run, name="detail"),
    path("<int:run_id>/events/", console.events, name="events"),
    path("<int:run_id>/cancel/", console.cancel, name="cancel"),
    path("<int:run_id>/resume/", console.resume, name="resume"),
]
