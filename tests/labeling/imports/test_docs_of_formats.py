"""What the documentation says of formats is what they do."""

import json
import re

import pytest

from labeling.imports.formats import FORMATS
from labeling.imports.records import Record
from labeling.web.docs import FOLDER
from tests.labeling.imports.formats.reading import parts

PAGE = (FOLDER / "formats.md").read_text(encoding="utf-8")
SECTIONS = {found[1]: found[2] for found in re.finditer(r"^### [^\n]*\(`(\w+)`\)\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)}


def test_every_format_has_its_section_and_no_other_is_promised():
    assert set(SECTIONS) == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_the_example_of_each_section_is_read(format):
    rows = [json.loads(line) for line in re.search(r"```json\n(.*?)```", SECTIONS[format], re.DOTALL)[1].splitlines()]
    config = re.search(r"(<View>.*</View>)", SECTIONS[format], re.DOTALL)
    found = parts(format, *rows, **({"config": config[1]} if config else {}))
    assert len(found) == 1
    assert isinstance(found[0], Record), found


@pytest.mark.parametrize("format", FORMATS)
def test_every_option_and_every_column_that_must_be_there_is_named(format):
    named = set(re.findall(r"\w+(?:-\w+)*", SECTIONS[format]))
    assert {option.name for option in FORMATS[format].options} <= named
    assert {column.name for column in FORMATS[format].columns if column.required} <= named


def test_the_formats_whose_columns_can_be_mapped_are_listed():
    (listed,) = re.findall(r"^For (.*), columns of the file may go by other names", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", listed)) == {name for name, format in FORMATS.items() if format.mappable}
