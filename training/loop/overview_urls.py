"""A project's front page, included by labeling.projects.urls: it shows every app, so the uppermost one has it."""

from django.urls import path

from training.loop.overview_console import front_page

urlpatterns = [path("", front_page, name="overview")]
