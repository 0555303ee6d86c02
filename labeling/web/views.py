"""Pages of the site itself: the way in, errors, health."""

import sys

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe
from django.views.i18n import JavaScriptCatalog

from labeling.database.away import SECONDS_UNTIL_BACK, is_away


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(
        request,
        "web/error.html",
        {
            "title": _("This form is too old"),
            "message": _(
                "The page was open for so long, or the log-in changed, that the form can no longer be trusted. "
                "Go back, reload the page and send it again; a draft is kept on the ranking page."
            ),
        },
        status=403,
    )


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith("/api/"):
        return _api_error("not_found", "There is no such address", status=404)
    return render(
        request,
        "web/error.html",
        {"title": _("Not found"), "message": _("There is no such page, or it isn't yours to see.")},
        status=404,
    )


def server_error(request: HttpRequest) -> HttpResponse:
    if is_away(sys.exc_info()[1]):
        return _database_away(request)
    if request.path.startswith("/api/"):
        return _api_error("server_error", "Something broke here; the log says what", status=500)
    return render(
        request,
        "web/error.html",
        {
            "title": _("Something broke"),
            "message": _("The fault is ours and is in the server's log. Nothing you submitted before is lost."),
        },
        status=500,
    )


def _database_away(request: HttpRequest) -> HttpResponse:
    if request.path.startswith("/api/"):
        message = "The database does not answer right now; nothing of this request was kept: send it again"
        response: HttpResponse = _api_error("unavailable", message, status=503)
    else:
        request.user = AnonymousUser()  # who it is would have to be looked up
        response = render(
            request,
            "web/error.html",
            {
                "title": _("Back in a moment"),
                "message": _(
                    "The database does not answer right now. Nothing you submitted before is lost: reload the page "
                    "in some seconds."
                ),
            },
            status=503,
        )
    response["Retry-After"] = str(SECONDS_UNTIL_BACK)
    return response


def _api_error(code: str, message: str, *, status: int) -> JsonResponse:
    from labeling.web.api import error_body  # pages must not wait for the REST framework to load

    return JsonResponse(error_body(code, message), status=status)


@require_safe
def catalogue(request: HttpRequest, language: str) -> HttpResponse:
    """What the scripts say, in this language. The address carries the version, so browsers may keep it."""
    if language not in dict(settings.LANGUAGES):
        raise Http404(f"There is no language {language!r}")
    with translation.override(language):
        response = JavaScriptCatalog.as_view(packages=["labeling.web"])(request)
    response["Cache-Control"] = "public, max-age=86400"
    return response


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """The process can serve: its database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception:
        return JsonResponse({"status": "unavailable", "database": "does not answer"}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})
