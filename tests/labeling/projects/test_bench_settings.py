import pytest

from labeling.projects.bench_settings import DEFAULT_BENCH, complete_bench_settings


def test_defaults_are_filled_in_and_fit():
    assert complete_bench_settings({}) == (DEFAULT_BENCH, {})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"system_prompts": "maybe"}, "system_prompts"),
        ({"blur": 1}, "blur"),
        ({"daily_cap": -1}, "daily_cap"),
        ({"break_minutes": True}, "break_minutes"),
        ({"content_warning": "x" * 4001}, "content_warning"),
        ({"colour": "red"}, "colour"),
        ([], "bench"),
    ],
)
def test_a_wrong_setting_is_named(given, field):
    assert list(complete_bench_settings(given)[1]) == [field]
