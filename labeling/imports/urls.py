"""Pages below a project's address; `labeling.projects.urls` takes them in."""

from django.urls import path

from labeling.imports import console

urlpatterns = [
    path("import/", console.import_file, name="import"),
    path("import/<int:import_id>/", console.import_result, name="import_result"),
    path("import/<int:import_id>/check/", console.check, name="import_check"),
    path("import/<int:import_id>/drop/", console.drop, name="import_drop"),
    path("import/<int:import_id>/cancel/", console.cancel, name="import_cancel"),
    path("import/<int:import_id>/resume/", console.resume, name="import_resume"),
    path("import/<int:import_id>/rejected.jsonl", console.rejected, name="import_rejected"),
]
