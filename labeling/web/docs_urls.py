from django.urls import path

from labeling.web import docs

app_name = "docs"
urlpatterns = [
    path("", docs.docs, name="index"),
    *(path(f"{name}/", docs.docs, {"name": name}, name=name) for name in docs.ORDER if name != "index"),
]
