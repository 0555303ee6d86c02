from django.urls import path

from training.registry import console, console_downloads, console_files

app_name = "registry"
urlpatterns = [
    path("", console.models, name="list"),
    path("import/", console_files.bring_in, name="import"),
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
