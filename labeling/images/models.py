import secrets

from django.conf import settings
from django.db import models

from labeling.projects.models import Project


def new_public_id() -> str:
    return secrets.token_hex(16)


def place_of(image: "Image", filename: str) -> str:
    """Below settings.FILES; nothing of the name that the file came with."""
    return f"images/{image.public_id[:2]}/{image.public_id}.{image.extension}"


class Image(models.Model):
    """A picture that prompts and completions of one project may show. Drawn anew from its pixels, never edited."""

    class ContentType(models.TextChoices):
        PNG = "image/png", "PNG"
        JPEG = "image/jpeg", "JPEG"
        WEBP = "image/webp", "WebP"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="images")
    public_id = models.CharField(max_length=32, unique=True, default=new_public_id)
    sha256 = models.CharField(max_length=64, help_text="of the file as it was uploaded")
    name = models.CharField(max_length=200, help_text="the file's name as it was uploaded")
    content_type = models.CharField(max_length=20, choices=ContentType.choices)
    width = models.PositiveIntegerField(help_text="pixels")
    height = models.PositiveIntegerField(help_text="pixels")
    n_bytes = models.PositiveIntegerField(help_text="as stored")
    file = models.FileField(upload_to=place_of, max_length=120)
    uploaded_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "sha256"], name="image_once_a_project")]

    def __str__(self) -> str:
        return f"image {self.public_id}"

    @property
    def extension(self) -> str:
        return self.content_type.removeprefix("image/")

    @property
    def reference(self) -> str:
        """How a text names it; with its size, so that a page keeps the room free before the file is there."""
        return f"image:{self.public_id}-{self.width}x{self.height}"

    @property
    def markdown(self) -> str:
        words = self.name.rpartition(".")[0] or self.name
        return f"![{''.join(char if char.isalnum() else ' ' for char in words).strip()}]({self.reference})"
