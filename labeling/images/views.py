"""The pictures themselves, for those who judge or read the project they belong to."""

from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponseBase, HttpResponseNotModified
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from labeling.images.selectors import images_seen_by

YEAR_SECONDS = 365 * 24 * 3600


@require_safe
@login_required
def show(request: HttpRequest, image_id: str) -> HttpResponseBase:
    """One image. An id names the same bytes for ever, so a browser asks once."""
    image = get_object_or_404(images_seen_by(request.user), public_id=image_id)
    etag = f'"{image.public_id}"'
    response: HttpResponseBase
    if request.headers.get("If-None-Match") == etag:
        response = HttpResponseNotModified()
    else:
        try:
            content = image.file.open("rb")
        except OSError:
            raise Http404("The file is not there") from None
        response = FileResponse(content, content_type=image.content_type)
        response["Content-Disposition"] = f'inline; filename="image-{image.public_id[:12]}.{image.extension}"'
    response["ETag"] = etag
    response["Cache-Control"] = f"private, max-age={YEAR_SECONDS}, immutable"
    response["Vary"] = "Cookie"
    # Opened by itself, a file is a page of this site: one that may do nothing.
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
