"""Headers that every answer carries, beside those of Django and django-csp."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def security_headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault(
            "Permissions-Policy",
            "camera=(), microphone=(), geolocation=(), interest-cohort=(), browsing-topics=()",
        )
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if settings.LIVE_PORT:
            # Sockets live on another port of this host in embedded mode.
            host = (
                request.get_host().rsplit(":", 1)[0]
                if not request.get_host().endswith("]")
                else request.get_host()
            )
            scheme = "wss" if request.is_secure() else "ws"
            update = getattr(response, "_csp_update", None) or {}
            response._csp_update = {**update, "connect-src": [f"{scheme}://{host}:{settings.LIVE_PORT}"]}
        if not request.path.startswith(settings.STATIC_URL):
            response.headers.setdefault("Cache-Control", "no-store, private")
        return response

    return middleware
