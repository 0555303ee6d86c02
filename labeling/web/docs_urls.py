from django.urls import path

from labeling.web import docs

app_name = "docs"
urlpatterns = [
    path("", docs.docs, name="index"),
    path("<slug:name>/", docs.docs, name="page"),
]
