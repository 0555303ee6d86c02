"""Every address of the site. Pages of a project live under /projects/<slug>/; the REST API under /api/v1/."""

from django.contrib import admin
from django.urls import include, path

from config.metrics import metrics
from labeling.conversation.views import bench_or_conversations

urlpatterns = [
    path("api/v1/", include("config.api_urls")),  # first: what is asked for most
    path("", include("labeling.web.urls")),
    path("", include("labeling.accounts.urls")),
    path("", include("labeling.images.urls")),
    # Where a project is for conversations, its bench leads there.
    path("projects/<slug:slug>/bench/", bench_or_conversations),
    path("projects/<slug:slug>/bench/conversations/", include("labeling.conversation.urls")),
    path("projects/<slug:slug>/bench/", include("labeling.annotation.urls")),
    path("projects/<slug:slug>/bench/", include("labeling.quality.urls_of_bench")),
    path("projects/<slug:slug>/bench/", include("labeling.preferences.urls_of_bench")),
    path("projects/<slug:slug>/snapshots/", include("labeling.preferences.urls")),
    path("projects/<slug:slug>/runs/", include("training.runs.urls")),
    path("projects/<slug:slug>/features/", include("training.features.urls")),
    path("projects/<slug:slug>/models/", include("training.registry.urls")),
    path("projects/<slug:slug>/endpoints/", include("training.endpoints.urls")),
    path("projects/<slug:slug>/iterations/", include("training.loop.urls")),
    path("projects/", include("labeling.projects.urls")),
    path("docs/", include("labeling.web.docs_urls")),
    path("metrics", metrics, name="metrics"),
    path("admin/", admin.site.urls),
]

handler404 = "labeling.web.views.page_not_found"
handler500 = "labeling.web.views.server_error"
