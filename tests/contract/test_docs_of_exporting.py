"""The page on taking data out shows a row of every view as it is."""

import re

import pytest

from labeling.preferences.views_of_snapshots import VIEWS
from labeling.preferences.views_out.columns import JSON, NUMBER, WORD
from labeling.preferences.views_out.view import CONTENT_TYPES
from labeling.web.docs import FOLDER
from labeling.web.strict_json import parse

PAGE = (FOLDER / "exporting.md").read_text(encoding="utf-8")
TYPES = {str: str, WORD: str, int: int, NUMBER: int, float: float, bool: bool}


def fits(value, shape):
    if value is None or shape is JSON:
        return True
    if isinstance(shape, dict):
        return isinstance(value, dict) and value.keys() <= shape.keys() and all(map(fits, value.values(), map(shape.get, value)))
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    return type(value) is TYPES[shape]


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_has_a_chapter_with_a_row_that_fits_its_columns(view):
    [chapter] = re.findall(rf"^## {view}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert f"| `{view}`" in PAGE
    if columns := VIEWS[view].columns:
        [row] = re.findall(r"```json\n(.*?)```", chapter, re.DOTALL)
        row = parse(row.encode(), "utf-8")
        assert set(row) == set(columns)
        assert [name for name in row if not fits(row[name], columns[name])] == []
    for name in VIEWS[view].beside:
        assert f"`{name}?view={view}`" in chapter


def test_each_kind_of_file_is_named():
    kinds = {kind for view in VIEWS.values() for kind in view.kinds}
    assert [kind for kind in kinds if f"`{kind}`" not in PAGE] == [] and kinds <= set(CONTENT_TYPES)
