"""Sending a file that never changes: in constant memory, in parts, and only if the caller has not got it."""

import re
from collections.abc import Iterator
from pathlib import Path

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import parse_etags

from labeling.preferences.views_out.making import made
from labeling.web.api import Refused

CHUNK_BYTES = 1 << 18


class OutOfRange(Refused):
    def __init__(self, size: int) -> None:
        super().__init__("range_not_satisfiable", f"The file has {size:,} bytes", status=416)
        self.size = size


def send_file(
    request: HttpRequest, path: Path, *, content_type: str, filename: str, sha256: str = ""
) -> HttpResponseBase:
    """Answer 200, 206 for one range, or 304. The ETag is the SHA-256: the one given, or that found while it was made.
    Raises OutOfRange (416).

    RFC 9110: a range of a wrong form and a list of ranges are ignored; so is any range if `If-Range` names
    another content. `If-None-Match` goes first.
    """
    known = {"sha256": sha256, "bytes": path.stat().st_size} if sha256 else made(path)
    etag, size = f'"{known["sha256"]}"', known["bytes"]
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    wanted = [tag.removeprefix("W/") for tag in parse_etags(request.headers.get("If-None-Match", ""))]
    if etag in wanted or "*" in wanted:
        return HttpResponse(status=304, headers=headers)
    start, end, status = 0, size, 200
    if request.method == "GET" and request.headers.get("If-Range", etag) == etag:
        found = _range(request.headers.get("Range", ""), size)
        if found is not None:
            (start, end), status = found, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers |= {
        "Content-Length": str(end - start),
        "Content-Type": content_type,
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    return StreamingHttpResponse(_part(path, start, end), status=status, headers=headers)


def _range(text: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last, or None where there is no range to honour."""
    found = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", text, re.ASCII)
    if found is None or found[0].strip() == "bytes=-" or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last n bytes
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= end:
        raise OutOfRange(size)
    return start, end


def _part(path: Path, start: int, end: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        left = end - start
        while left and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
