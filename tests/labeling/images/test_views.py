"""The files, the console page and the REST call."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from labeling.accounts.models import ApiToken
from labeling.images import pixels
from labeling.images.models import Image
from labeling.images.services import store_image
from tests import factories
from tests.api_caller import Caller, code_of
from tests.labeling.images.pictures import picture, png
from tests.labeling.images.test_services import _own_files  # noqa: F401

pytestmark = pytest.mark.django_db
API = "projects/support/images/"
PAGE = "/projects/support/images/"


@pytest.fixture
def image(project, lead) -> Image:
    return store_image(project=project, file=png(), name="cat.png", uploaded_by=lead)[0]


def upload(name: str = "cat.png", content: bytes | None = None) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, png().read() if content is None else content, content_type="image/png")


def send(caller: Caller, **fields):
    return caller.post(API, encode_multipart(BOUNDARY, fields), content_type=MULTIPART_CONTENT)


# --- files --------------------------------------------------------------------------------------
def test_members_get_the_file_and_it_can_do_nothing(client, image, annotator):
    client.force_login(annotator)
    answer = client.get(f"/images/{image.public_id}/")
    assert answer.status_code == 200
    content = b"".join(answer.streaming_content)
    assert content == image.file.open("rb").read()
    assert answer["Content-Type"] == "image/png"
    assert answer["Content-Length"] == str(image.n_bytes)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer["Content-Disposition"] == f'inline; filename="image-{image.public_id[:12]}.png"'
    assert answer["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_browser_that_has_it_is_told_so_but_only_if_it_may_see_it(client, image, annotator, stranger):
    client.force_login(annotator)
    etag = client.get(f"/images/{image.public_id}/")["ETag"]
    assert client.get(f"/images/{image.public_id}/", headers={"If-None-Match": etag}).status_code == 304
    client.force_login(stranger)
    assert client.get(f"/images/{image.public_id}/", headers={"If-None-Match": etag}).status_code == 404


def test_others_learn_nothing_of_it(client, image, stranger):
    address = f"/images/{image.public_id}/"
    assert client.get(address).url.startswith("/login/")
    client.force_login(stranger)
    assert client.get(address).status_code == 404
    assert client.get("/images/" + "0" * 32 + "/").status_code == 404
    factories.make_project(stranger, slug="theirs")
    assert client.get(address).status_code == 404


def test_a_file_that_is_gone_is_a_404(client, image, annotator):
    image.file.storage.delete(image.file.name)
    client.force_login(annotator)
    assert client.get(f"/images/{image.public_id}/").status_code == 404


# --- the console --------------------------------------------------------------------------------
def test_several_files_go_in_at_once_and_each_error_names_its_file(client, project, lead):
    client.force_login(lead)
    files = [
        upload("one.png"),
        upload("two.svg", b"<svg/>"),
        upload("three.jpg", picture("JPEG").read()),
        upload("one again.png"),
    ]
    answer = client.post(PAGE, {"files": files})
    assert answer.status_code == 422
    page = answer.content.decode()
    assert "two.svg" in page and "not a PNG, JPEG, WebP or GIF file" in page
    assert "was here before" in page
    assert set(Image.objects.values_list("name", flat=True)) == {"one.png", "three.jpg"}
    assert all(image.markdown in page for image in Image.objects.all())


def test_an_empty_page_says_what_to_do(client, project, lead):
    client.force_login(lead)
    answer = client.get(PAGE)
    assert "No images yet" in answer.content.decode()
    assert client.post(PAGE).status_code == 422


def test_readers_see_the_page_and_only_those_who_bring_data_in_may_upload(client, image, reviewer, engineer, annotator):
    for user, sees, uploads in ((reviewer, 200, 403), (engineer, 200, 200), (annotator, 404, 404)):
        client.force_login(user)
        assert client.get(PAGE).status_code == sees
        answer = client.post(PAGE, {"files": [upload(f"{user}.png")]})
        assert answer.status_code == uploads, user


def test_the_page_asks_no_more_of_the_database_for_more_images(client, project, lead, django_assert_max_num_queries):
    client.force_login(lead)
    for shade in range(12):
        store_image(project=project, file=png(colour=(shade, 0, 0)), name=f"{shade}.png", uploaded_by=lead)
    client.get(PAGE)
    with django_assert_max_num_queries(16):
        client.get(PAGE)


# --- REST ---------------------------------------------------------------------------------------
def test_an_image_goes_in_and_comes_back_with_its_markdown(project, engineer):
    caller = Caller(engineer)
    answer = send(caller, file=upload("a cat.png"))
    assert answer.status_code == 201
    body = answer.json()
    assert (body["width"], body["height"], body["content_type"]) == (64, 48, "image/png")
    assert body["markdown"] == f"![a cat](image:{body['id']}-64x48)"
    assert send(caller, file=upload("other name.png")).status_code == 200
    assert caller.get(API).json()["results"] == [body]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, 400, "invalid"),
        ({"file": "text"}, 400, "invalid"),
        ({"other": upload()}, 400, "invalid"),
        ({"file": upload("x.png", b"<svg onload=alert(1)>")}, 400, "invalid"),
        ({"file": upload("x.png", b"x" * (pixels.MAX_BYTES + 1))}, 413, "request_too_large"),
    ],
)
def test_what_is_wrong_is_refused_in_the_one_shape(project, lead, fields, status, code):
    answer = send(Caller(lead), **fields)
    assert answer.status_code == status
    assert code_of(answer) == code
    assert not Image.objects.exists()


def test_too_many_pixels_are_too_large(project, lead, monkeypatch):
    monkeypatch.setattr(pixels, "MAX_PIXELS", 100)
    assert send(Caller(lead), file=upload()).status_code == 413


def test_roles_and_scopes_are_those_of_imports(project, lead, annotator, reviewer, stranger):
    for user, status in ((annotator, 403), (reviewer, 403), (stranger, 404)):
        assert send(Caller(user), file=upload()).status_code == status
    assert send(Caller(lead, [ApiToken.Scope.READ]), file=upload()).status_code == 403
    assert Caller(lead).post(API, {"file": "x"}).status_code == 415


def test_annotators_may_list(image, annotator):
    assert [row["id"] for row in Caller(annotator).get(API).json()["results"]] == [image.public_id]
