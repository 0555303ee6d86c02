"""The ASGI application of the `live` process: who may open a socket, and which consumer takes it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.urls import path

from labeling.live.consumers import FindAudience, WatchConsumer

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def live_application(
    audiences: Mapping[str, FindAudience],
    consumers: Mapping[str, Application] | None = None,
    lifespan: Application | None = None,
) -> Application:
    """`audiences` maps an address below /live/, with `<target>` in it, to who may hear what there.

    `consumers` are addresses with a consumer of their own, which checks for itself who may listen. `lifespan` hears
    of the start and the end of the process.
    """
    routes = [
        path(f"live/{address}", type("Watch", (WatchConsumer,), {"find_audience": staticmethod(find)}).as_asgi())
        for address, find in audiences.items()
    ]
    routes += [path(f"live/{address}", consumer) for address, consumer in (consumers or {}).items()]
    sockets = same_host(AuthMiddlewareStack(URLRouter([*routes, path("<path:rest>", refuse), path("", refuse)])))
    return ProtocolTypeRouter({"websocket": sockets, "http": answer_http, "lifespan": lifespan or answer_lifespan})


def same_host(inner: Application) -> Application:
    """Only our own pages may open sockets: browsers send cookies with a socket from any page at all.

    The names must match; the ports may differ, for in embedded mode pages come from another port.
    """

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if origin_is_ours(headers.get(b"origin", b""), headers.get(b"host", b"")):
            await inner(scope, receive, send)
        else:
            await refuse(scope, receive, send)

    return application


def origin_is_ours(origin: bytes, host: bytes) -> bool:
    try:
        parts = urlsplit(origin.decode("ascii"))
        domain, _ = split_domain_port(host.decode("ascii"))
        return (
            parts.scheme in ("http", "https")
            and bool(domain)
            and split_domain_port(parts.netloc)[0] == domain
            and validate_host(domain, settings.ALLOWED_HOSTS)
        )
    except (UnicodeDecodeError, ValueError):
        return False


async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Closing before accepting answers the handshake with 403."""
    await receive()
    await send({"type": "websocket.close", "code": 4403})


async def answer_http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """For health checks; pages are served by `web`."""
    status, body = (200, b"ok\n") if scope["path"] == "/healthz" else (404, b"only sockets here\n")
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def answer_lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """There is nothing to begin and nothing to end."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
