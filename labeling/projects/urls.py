from django.urls import include, path

from labeling.projects import console

app_name = "projects"
urlpatterns = [
    path("new/", console.new_project, name="new"),
    # Pages under a project's address that belong to apps above this one; named here so that nothing is imported.
    path("<slug:slug>/", include("training.loop.overview_urls")),
    path("<slug:slug>/", include("labeling.quality.urls")),
    path("<slug:slug>/", include("labeling.imports.urls")),
    path("<slug:slug>/", include("labeling.conversation.console_urls")),
    path("<slug:slug>/", include("labeling.webhooks.console_urls")),
    path("", include("labeling.annotation.console_urls")),
    path("<slug:slug>/settings/", console.settings, name="settings"),
    path("<slug:slug>/state/", console.set_state, name="state"),
    path("<slug:slug>/people/", console.people, name="people"),
    path("<slug:slug>/people/<int:user_id>/remove/", console.remove_person, name="remove_person"),
    path("<slug:slug>/guidelines/", console.guidelines, name="guidelines"),
    path("<slug:slug>/guidelines/preview/", console.guideline_preview, name="guideline_preview"),
    path("<slug:slug>/prompts/", console.prompts, name="prompts"),
    path("<slug:slug>/prompts/<int:prompt_id>/", console.prompt, name="prompt"),
]
