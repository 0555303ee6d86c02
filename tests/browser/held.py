"""Requests held back by a test."""

from playwright.sync_api import Page, Route


def first_held(page: Page, held: list[Route], seconds: float = 60) -> Route:
    """The first request that a route put in `held`, once it is there."""
    for _ in range(int(seconds * 50)):
        if held:
            return held[0]
        page.wait_for_timeout(20)
    raise AssertionError(f"nothing was requested within {seconds} s")
