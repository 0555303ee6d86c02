"""Files for tests, as cameras and attackers make them."""

import io
from typing import Any

from PIL import Image


def picture(
    format: str = "PNG",
    size: tuple[int, int] = (64, 48),
    colour: Any = (200, 40, 90),
    mode: str = "RGB",
    **options: Any,
) -> io.BytesIO:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format, **options)
    file.seek(0)
    return file


def png(size: tuple[int, int] = (64, 48), colour: Any = (200, 40, 90)) -> io.BytesIO:
    return picture("PNG", size, colour)
