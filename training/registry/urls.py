from django.urls import path

from training.registry import console, console_downloads, console_files, console_imports

app_name = "registry"
urlpatterns = [
    path("", console.models, name="list"),
    path("import/", console_imports.bring_in, name="import"),
    path("import/<int:model_import_id>/", console_imports.import_result, name="import_result"),
    path("import/<int:model_import_id>/cancel/", console_imports.cancel, name="import_cancel"),
    path("stages/", console.stage_changes, name="stage_changes"),
    path("lineage/", console_files.lineage, name="lineage"),
    path("<int:model_id>/", console.model, name="detail"),
    path("<int:model_id>/card/", console_files.card, name="card"),
    path("<int:model_id>/card.md", console_files.card_file, name="card_file"),
    path("<int:model_id>/archive.tar", console_downloads.archive, name="archive"),
    path("<int:model_id>/files/<path:file>", console_downloads.file, name="file"),
    path("<int:model_id>/terms/", console_files.terms, name="terms"),
    path("<int:model_id>/terms/accept/", console_files.accept, name="accept_terms"),
    path("<int:model_id>/verify/", console_files.verified, name="verify"),
]
