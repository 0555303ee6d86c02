"""Included in `projects`, whose name they share: the console's pages are one family."""

from django.urls import path

from labeling.conversation import console

urlpatterns = [
    path("conversation/", console.conversation, name="conversation"),
    path("conversation/servers/", console.servers, name="conversation_servers"),
]
