import pytest
from django.urls import include, path

from config.urls import handler404  # noqa: F401
from config.urls import urlpatterns as site
from labeling.web.docs import ORDER, chapters

urlpatterns = [path("docs/", include("labeling.web.docs_urls")), *site]
pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]


@pytest.mark.parametrize("name", [name for name, _ in chapters()])
def test_each_page_of_the_documentation_opens_without_an_account(client, name):
    answer = client.get(f"/docs/{name}/")
    assert answer.status_code == 200
    assert 'aria-current="page"' in answer.content.decode()


def test_the_first_page_is_the_index_and_no_other_file_is_served(client):
    assert "Prefloop is one self-hosted system" in client.get("/docs/").content.decode()
    assert client.get("/docs/page/").status_code == 404
    assert [name for name, _ in chapters()][: len(ORDER) - 1] == [name for name in ORDER if name in dict(chapters())][
        : len(ORDER) - 1
    ]
