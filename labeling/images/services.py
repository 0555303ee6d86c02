import hashlib
from contextlib import suppress
from pathlib import PurePath
from typing import BinaryIO

from django.core.files.base import ContentFile
from django.db import IntegrityError, transaction

from labeling.accounts.models import User
from labeling.images.models import Image
from labeling.images.pixels import read_bounded, redraw
from labeling.projects.models import Project


def store_image(*, project: Project, file: BinaryIO, name: str, uploaded_by: User | None) -> tuple[Image, bool]:
    """Keep a picture for the project's texts; the same file again is the same image. Returns it, and whether it is new.

    Raises BadImage or ImageTooLarge, and keeps nothing then.
    """
    raw = read_bounded(file)
    digest = hashlib.sha256(raw).hexdigest()
    if there := Image.objects.filter(project=project, sha256=digest).first():
        return there, False
    picture = redraw(raw)
    image = Image(
        project=project, sha256=digest, name=clean_name(name), content_type=picture.content_type, width=picture.width,
        height=picture.height, n_bytes=len(picture.content), uploaded_by=uploaded_by,
    )  # fmt: skip
    image.file.save("", ContentFile(picture.content), save=False)
    try:
        with transaction.atomic():
            image.save(force_insert=True)
    except BaseException as error:
        # No row, no file: also where two people sent the same picture at once and the other came first.
        with suppress(OSError):
            image.file.delete(save=False)
        if isinstance(error, IntegrityError) and (
            there := Image.objects.filter(project=project, sha256=digest).first()
        ):
            return there, False
        raise
    return image, True


def clean_name(name: str) -> str:
    """The last part of a path, without what shows nothing; never empty."""
    last = PurePath(name.replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable())[:200] or "image"
