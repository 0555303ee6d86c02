"""From hostile bytes to clean pixels."""

import io
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from labeling.images import pixels
from labeling.images.errors import BadImage, ImageTooLarge
from labeling.images.pixels import MAX_BYTES, read_bounded, redraw
from tests.labeling.images.pictures import picture, png


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("format", "content_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/png")],
)
def test_each_kind_is_drawn_anew(format, content_type):
    made = redraw(picture(format, (40, 30)).read())
    assert (made.content_type, made.width, made.height) == (content_type, 40, 30)
    assert opened(made.content).size == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_each_mode_of_png_is_taken(mode):
    colour = {"LA": (9, 200), "RGB": (9, 9, 9), "RGBA": (9, 9, 9, 50)}.get(mode, 1)
    made = opened(redraw(picture("PNG", (8, 8), colour, mode).read()).content)
    assert made.mode in ("L", "RGB", "RGBA")
    assert ("A" in made.getbands()) == ("A" in mode)


def test_sixteen_bits_of_grey_become_eight_and_not_black():
    made = opened(redraw(picture("PNG", (8, 8), 0x8000, "I;16").read()).content)
    assert made.convert("L").getpixel((0, 0)) == 0x80


def test_a_photograph_of_four_inks_is_taken():
    assert opened(redraw(picture("JPEG", (8, 8), (1, 2, 3, 4), "CMYK").read()).content).mode == "RGB"


def test_nothing_but_pixels_survives():
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "<script>alert(1)</script>")
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    for file in (
        picture("PNG", pnginfo=text, exif=exif, icc_profile=b"profile of mine"),
        picture("JPEG", exif=exif, comment=b"<script>alert(1)</script>", icc_profile=b"profile of mine"),
        picture("WEBP", exif=exif, xmp=b"<script>alert(1)</script>"),
    ):
        raw = file.read() + b"<html><script>alert(1)</script></html>"
        made = redraw(raw)
        for trace in (b"script", b"where I live", b"profile of mine"):
            assert trace not in made.content
        assert opened(made.content).getexif() == {}


def test_a_photograph_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    made = redraw(picture("JPEG", (40, 30), exif=exif).read())
    assert (made.width, made.height) == (30, 40)


def test_of_an_animation_the_first_frame_stays():
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    made = opened(redraw(file.getvalue()).content)
    assert getattr(made, "n_frames", 1) == 1
    assert made.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP", SVG, b"<?xml version='1.0'?>" + SVG,
        b"GIF89a/*" + SVG + b"*/=1;alert(1)", b"<html><script>alert(1)</script>", b"%PDF-1.4", b"PK\x03\x04" + b"x" * 100, b"BM" + b"\x00" * 60,
        b"\x00\x00\x01\x00" + b"\x00" * 40, b"II*\x00" + b"\x00" * 60, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 9 9 255 " + b"x" * 300,
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(raw):
    with pytest.raises(BadImage):
        redraw(raw)


@pytest.mark.parametrize("format", ["BMP", "TIFF", "ICO", "PPM", "TGA"])
def test_other_kinds_of_picture_are_refused(format):
    with pytest.raises(BadImage):
        redraw(picture(format).read())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_cut_off_is_refused(format):
    raw = picture(format, (200, 200)).read()
    with pytest.raises(BadImage):
        redraw(raw[: len(raw) // 2])


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels and is a hundred bytes long."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (5_000, 5_000), (20_000, 2), (2, 20_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_any_is_decoded(size, monkeypatch):
    monkeypatch.setattr(pixels, "_plain", lambda *args, **kwargs: pytest.fail("decoded"))
    with pytest.raises(BadImage):
        redraw(bomb(*size))


def test_a_text_chunk_that_unpacks_to_very_much_is_refused():
    data = b"a\0\0" + zlib.compress(b"x" * 80_000_000)
    raw = png().read()
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    with pytest.raises(BadImage):
        redraw(raw[:33] + chunk + raw[33:])


def test_more_bytes_than_are_taken_are_not_read():
    with pytest.raises(ImageTooLarge):
        read_bounded(io.BytesIO(b"x" * (MAX_BYTES + 1)))
