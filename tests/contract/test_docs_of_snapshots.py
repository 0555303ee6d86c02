"""The page on snapshots names every filter and policy there is, each choice, and calls that exist."""

import re

from django.urls import Resolver404, resolve

from labeling.preferences.filters import FILTERS, POLICY
from labeling.web.docs import FOLDER

PAGE = (FOLDER / "snapshots.md").read_text(encoding="utf-8")


def test_every_filter_every_part_of_the_policy_and_every_choice_is_on_the_page():
    names = [*FILTERS, *POLICY]
    choices = [choice for part in (*FILTERS.values(), *POLICY.values()) for choice in part.choices or ()]
    assert [name for name in names + choices if f"`{name}`" not in PAGE] == []


def test_every_call_on_the_page_has_an_address():
    paths = re.findall(r"`(?:(?:GET|POST|PUT) )?(/[a-z{][^`?]*/)(?:\?[^`]*)?`", PAGE)
    assert len(paths) >= 10
    for path in paths:
        try:
            resolve("/api/v1" + path.replace("{slug}", "support").replace("{id}", "1"))
        except Resolver404:
            raise AssertionError(f"{path} is no call") from None
