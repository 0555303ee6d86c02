import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labeling.web import strict_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
# What breaks parsers, in pieces to be put together.
PIECES = st.sampled_from(
    ['{"a":1', '"a":2', '"\\u0061":3', ",", "}", "[", "]", '"', "\\", "\\u0000", "\\ud800", "\\udc00", "NaN", "-Infinity", "1e999", "-0", "1E+5",
     "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1234567890123456789.5", "0.1", "5e-324", ":", " ", "\n", "{}",
     "[[", "]]", "tru", "true", "null", "ä", "\x00", "\x1f", "\x7f", "\ufeff", "1", "01", "-", ".5", '"x:y"', '"{"']
)  # fmt: skip


def outcome(parse, raw: bytes):
    try:
        return parse(raw)
    except ValueError as error:
        return type(error).__name__, str(error)


def same(one, other) -> bool:
    # Equal in the kinds of numbers and the sign of zero too.
    return repr(one) == repr(other)


@settings(max_examples=500, deadline=None)
@given(JSON)
def test_what_was_written_as_json_comes_back(value):
    for written in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        try:
            raw = written.encode()
        except UnicodeEncodeError:
            continue
        expected = outcome(lambda raw: strict_json._parse_slowly(raw.decode()), raw)
        assert same(outcome(strict_json.parse, raw), expected)
        if "\\u0000" not in written and "\\ud" not in written:
            assert same(strict_json.parse(raw), value)


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
@example('{"a":1,"\\u0061":3}')
@example('{"a":{"b":1,"b":1}}')
@example("-0")
@example('{"x:y":1}')
def test_the_fast_way_answers_as_the_slow_one_does(text):
    raw = text.encode()
    assert same(outcome(strict_json.parse, raw), outcome(lambda raw: strict_json._parse_slowly(raw.decode()), raw))


@settings(max_examples=500, deadline=None)
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_numbers_are_read_to_the_last_bit(text):
    assert same(outcome(strict_json.parse, text.encode()), outcome(strict_json._parse_slowly, text))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"prompt": "a", "prompt": "b"}', "the field 'prompt' is given twice"),
        (b'{"a": {"b": [{"c": 1, "d": 2, "\\u0063": 3}]}}', "the field 'c' is given twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e308999}', "a number is too large"),
        (b'{"a": 9223372036854775808}', "does not fit into 64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "does not fit into 64 bits"),
        (b'{"a": "x\\u0000"}', "NUL"),
        (b'{"a\\u0000": 1}', "NUL"),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b"[" * 65 + b"]" * 65, "nested too deeply"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_stored_or_read_back_is_refused(raw, reason):
    with pytest.raises(ValueError, match=reason):
        strict_json.parse(raw)


def test_64_levels_are_taken():
    assert strict_json.parse(b"[" * 64 + b"]" * 64)
