from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    """What base.html needs on every page: the port of the sockets (0: this page's own) and the version."""
    return {"live_port": settings.LIVE_PORT, "site_version": settings.VERSION}
