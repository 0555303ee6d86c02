"""The site's first page. It lives here because only this app knows what waits for a person."""

from django.urls import path

from labeling.annotation import views

urlpatterns = [path("", views.home, name="home")]
