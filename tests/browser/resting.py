"""Where things are once nothing moves them any more: pages bring what comes next into view a frame later."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def at_rest(page: Page, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` gives twice in a row, frames apart."""
    found = None
    while found != (found := measure()):
        page.evaluate(TWO_FRAMES)
    return found
