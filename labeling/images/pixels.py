"""From whatever was sent to a clean picture: only the pixels of the first frame survive. No Django."""

import io
import warnings
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from labeling.images.errors import BadImage, ImageTooLarge

MAX_BYTES = 10_000_000
MAX_PIXELS = 24_000_000
MAX_SIDE = 10_000
# Read by their content, whatever a file calls itself. What each becomes: photographs stay small, the rest stays exact.
KINDS = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WEBP", "GIF": "PNG"}

ImageFile.LOAD_TRUNCATED_IMAGES = False


@dataclass(frozen=True)
class Picture:
    content: bytes
    content_type: str
    width: int
    height: int


def read_bounded(file: BinaryIO) -> bytes:
    """Raises ImageTooLarge before more than a chunk too many is in memory."""
    raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ImageTooLarge(f"more than {MAX_BYTES // 1_000_000} MB")
    return raw


def redraw(raw: bytes) -> Picture:
    """Decode, turn upright, forget everything but the pixels, encode again.

    Raises BadImage if the bytes are no PNG, JPEG, WebP or GIF, or are cut off; ImageTooLarge by its announced size,
    before a pixel is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            with Pillow.open(io.BytesIO(raw), formats=tuple(KINDS)) as opened:
                kind = KINDS[opened.format or ""]
                if opened.width * opened.height > MAX_PIXELS or max(opened.size) > MAX_SIDE:
                    raise ImageTooLarge(
                        f"{opened.width} × {opened.height} pixels; {MAX_PIXELS // 1_000_000} million are taken"
                    )
                if not all(opened.size):
                    raise BadImage("no pixels")
                opened.load()
                upright = ImageOps.exif_transpose(opened)
                clean = _plain(upright, with_alpha=kind != "JPEG")
    except BadImage:
        raise
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        raise ImageTooLarge(f"more than {MAX_PIXELS // 1_000_000} million pixels") from None
    except (
        Exception
    ) as error:  # decoders of hostile bytes raise anything: OSError, ValueError, SyntaxError, struct.error
        raise BadImage("not a PNG, JPEG, WebP or GIF file, or a broken one") from error
    content = _encoded(clean, kind)
    return Picture(content, f"image/{kind.lower()}", *clean.size)


def _plain(image: Pillow.Image, *, with_alpha: bool) -> Pillow.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    is_seen_through = with_alpha and ("A" in image.getbands() or "transparency" in image.info)
    wanted = "RGBA" if is_seen_through else "L" if image.mode in ("1", "L") else "RGB"
    # `info` holds profiles, comments and text, some of which `save` would write out again.
    copy = Pillow.new(wanted, image.size)
    copy.paste(image.convert(wanted))
    return copy


def _encoded(image: Pillow.Image, kind: str) -> bytes:
    options = {"PNG": {"optimize": False}, "JPEG": {"quality": 90}, "WEBP": {"quality": 92, "method": 3}}[kind]
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
