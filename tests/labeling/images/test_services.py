import io

import pytest
from django.core.files.storage import default_storage
from django.db import IntegrityError

from labeling.images.errors import BadImage
from labeling.images.models import Image
from labeling.images.selectors import images_seen_by
from labeling.images.services import clean_name, store_image
from labeling.web.markdown import render_markdown
from tests import factories
from tests.labeling.images.pictures import picture, png

pytestmark = pytest.mark.django_db


def files() -> set[str]:
    try:
        folders = default_storage.listdir("images")[0]
    except FileNotFoundError:
        return set()
    return {name for folder in folders for name in default_storage.listdir(f"images/{folder}")[1]}


@pytest.fixture(autouse=True)
def _own_files(settings, tmp_path):
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**settings.STORAGES["default"], "OPTIONS": {"location": tmp_path}},
    }


def test_the_same_file_again_is_the_same_image(project, lead):
    first, is_new = store_image(project=project, file=png(), name="a.png", uploaded_by=lead)
    again, is_new_again = store_image(project=project, file=png(), name="b.png", uploaded_by=lead)
    assert (is_new, is_new_again) == (True, False)
    assert first == again
    assert files() == {f"{first.public_id}.png"}


def test_one_file_in_two_projects_is_two_images(project, lead):
    other = factories.make_project(lead, slug="other")
    first, _ = store_image(project=project, file=png(), name="a.png", uploaded_by=lead)
    second, _ = store_image(project=other, file=png(), name="a.png", uploaded_by=lead)
    assert first.public_id != second.public_id


def test_a_refused_file_leaves_nothing(project, lead):
    with pytest.raises(BadImage):
        store_image(project=project, file=io.BytesIO(b"<svg/>"), name="a.png", uploaded_by=lead)
    assert not Image.objects.exists() and files() == set()


def test_of_two_uploads_at_once_one_file_stays(project, lead, monkeypatch):
    first, _ = store_image(project=project, file=png(), name="a.png", uploaded_by=lead)
    real, calls = Image.objects.filter, []

    def blind_at_first(**conditions):
        calls.append(conditions)
        return real(**conditions) if len(calls) > 1 else Image.objects.none()

    monkeypatch.setattr(Image.objects, "filter", blind_at_first)
    assert store_image(project=project, file=png(), name="a.png", uploaded_by=lead) == (first, False)
    assert files() == {f"{first.public_id}.png"}


def test_a_row_that_cannot_be_written_leaves_no_file(project, lead, monkeypatch):
    def fail(*args, **kwargs):
        raise IntegrityError("disk full, say")

    monkeypatch.setattr(Image, "save", fail)
    with pytest.raises(IntegrityError):
        store_image(project=project, file=png(), name="a.png", uploaded_by=lead)
    assert files() == set()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cat.png", "cat.png"), ("../../etc/passwd", "passwd"), ("C:\\photos\\cat.png", "cat.png"), ("", "image"), ("a\u202egnp.exe", "agnp.exe"),
        ("x" * 300, "x" * 200), ("\x00", "image"),
    ],
)  # fmt: skip
def test_a_name_is_the_last_part_of_a_path_and_can_be_read(name, kept):
    assert clean_name(name) == kept


def test_the_reference_of_an_image_renders_as_that_image(project, lead):
    image, _ = store_image(project=project, file=picture("JPEG", (640, 480)), name="a](x) *cat*.jpg", uploaded_by=lead)
    html = render_markdown(f"Look: {image.markdown}")
    assert f'<img src="/images/{image.public_id}/" alt="a  x   cat" width="640" height="480"' in html


def test_images_are_seen_by_the_members_of_their_project(project, lead, annotator, stranger):
    image, _ = store_image(project=project, file=png(), name="a.png", uploaded_by=lead)
    assert list(images_seen_by(annotator)) == [image]
    assert not images_seen_by(stranger).exists()
