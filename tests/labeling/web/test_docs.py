import pytest

from labeling.web.docs import FOLDER, ORDER

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", ORDER)
def test_each_page_of_the_documentation_opens_without_an_account(client, name):
    answer = client.get("/docs/" if name == "index" else f"/docs/{name}/")
    assert answer.status_code == 200
    assert 'aria-current="page"' in answer.content.decode()


def test_every_page_that_is_written_is_served_and_nothing_else(client):
    assert {path.stem for path in FOLDER.glob("*.md")} == set(ORDER)
    assert client.get("/docs/page/").status_code == 404
