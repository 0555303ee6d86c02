"""Sockets, and the completions of live conversations: the `live` process. Pages and API are served by `config.wsgi`, which is five times faster for them."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from labeling.conversation.consumers import ConversationConsumer  # noqa: E402  (Django must be set up first)
from labeling.conversation.generator import lifespan  # noqa: E402
from labeling.live.routing import live_application  # noqa: E402
from labeling.projects.live import project_audience  # noqa: E402
from training.runs.live import run_audience  # noqa: E402

application = live_application(
    {
        "projects/<slug:target>/": project_audience,
        "runs/<int:target>/": run_audience,
    },
    {"conversations/<str:target>/": ConversationConsumer.as_asgi()},
    lifespan,
)
