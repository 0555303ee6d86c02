"""The language of the pages."""

from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.http import HttpRequest, HttpResponse
from django.utils import translation

# Nothing here is translated, so dates, form errors and what Django and the REST framework say stay English too.
ENGLISH = ("/api/", "/admin/", "/docs/", "/projects/new/")


def language_of_the_person(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """The language a person chose goes before the one that the browser asks for."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(ENGLISH):
            _speak(request, "en")
        elif chosen := _chosen_by(request):
            _speak(request, chosen)
        return get_response(request)

    return middleware


def _chosen_by(request: HttpRequest) -> str:
    """Empty for strangers, for those who never chose, and for a language that is no longer offered."""
    if SESSION_KEY not in request.session or not request.user.is_authenticated:
        return ""
    return request.user.language if request.user.language in dict(settings.LANGUAGES) else ""


def _speak(request: HttpRequest, language: str) -> None:
    translation.activate(language)
    request.LANGUAGE_CODE = translation.get_language()  # type: ignore[attr-defined]
