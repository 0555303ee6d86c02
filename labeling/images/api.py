"""Images in, so that texts can show them."""

from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle

from labeling.accounts.roles import TRAINING
from labeling.images.errors import BadImage, ImageTooLarge
from labeling.images.pixels import MAX_BYTES
from labeling.images.serializers import ImageSerializer
from labeling.images.services import store_image
from labeling.projects.api_access import ApiView
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, wrong_fields

FORM_BYTES = 100_000  # what a multipart body may hold beside the file


class ImageThrottle(UserRateThrottle):
    scope = "images"
    rate = "600/min"


class ImagesView(ApiView):
    parser_classes = [MultiPartParser]

    def get_throttles(self) -> list[UserRateThrottle]:
        return [ImageThrottle()] if self.request.method == "POST" else []

    @describe(
        "list_images", tag="images", answers={200: page_of(ImageSerializer)}, errors=[404], parameters=PAGE_PARAMETERS
    )
    def get(self, request: Request, slug: str) -> Response:
        """The project's images, the newest first."""
        return self.page(self.project(slug).images.all(), ImageSerializer)

    @describe(
        "add_image", tag="images",
        body={
            "multipart/form-data": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            },
        },
        answers={201: ImageSerializer, 200: ImageSerializer}, errors=[404, 429],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Add a PNG, JPEG, WebP or GIF file: 201 for a new image, 200 where the project has this file already.

        It is drawn anew from its pixels, so metadata, animation and whatever else a file may hide are gone.
        """
        project = self.project(slug, TRAINING)
        if _announced_bytes(request) > MAX_BYTES + FORM_BYTES:
            raise _too_large(f"more than {MAX_BYTES // 1_000_000} MB")
        if unknown := sorted(set(request.data) - {"file"}):
            raise wrong_fields({unknown[0]: "This field is not known here."})
        file = request.FILES.get("file")
        if file is None:
            raise wrong_fields({"file": "Send the image as a file under this name"})
        try:
            image, is_new = store_image(project=project, file=file, name=str(file.name), uploaded_by=request.user)
        except ImageTooLarge as error:
            raise _too_large(str(error)) from None
        except BadImage as error:
            raise wrong_fields({"file": str(error)}) from None
        return Response(ImageSerializer(image).data, status=201 if is_new else 200)


def _announced_bytes(request: Request) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isdigit() else 0


def _too_large(reason: str) -> Refused:
    return Refused("request_too_large", f"The image is too large: {reason}", status=413, fields={"file": [reason]})
