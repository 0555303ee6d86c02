"""Sockets alone: the `live` process. Pages and API are served by `config.wsgi`, which is five times faster for them."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()

from labeling.live.routing import application  # noqa: E402  (Django must be set up first)

__all__ = ["application"]
