"""Durations in the formats of AGS, within its limits."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.errors import ConfigurationError
from ags_flows.models.durations import MAXIMUM_SECONDS, MINIMUM_SECONDS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("300s", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h0m5s", 3605),
        ("5m0s", 300),
        ("24h", 86_400),
        ("23h59m60s", 86_400),
        ("300", 300),
        (" 5m ", 300),
        (300, 300),
        (300.9, 300),
        (timedelta(minutes=5), 300),
    ],
)
def test_every_documented_format_is_parsed(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "s", "h", "5", "29s", "24h1s", "25h", "-5m", "5 m", "5M", "m5", "30m1h", "5m30", "1.5h", "٥٠s",
     "9" * 5000 + "s",
     0, -1, 29, 86_401, True, None, float("nan"), float("inf"), [], "5m\n5m", timedelta(seconds=29.9)],
)  # fmt: skip
def test_anything_else_raises_an_error_with_field_value_and_rule(value):
    with pytest.raises(ConfigurationError, match=r"lease=.*(30s to 24h|such as '30s')"):
        parse_duration(value, field="lease")


@given(st.integers(MINIMUM_SECONDS, MAXIMUM_SECONDS))
def test_formatted_durations_are_parsed_to_the_same_value(seconds):
    assert parse_duration(format_duration(seconds)) == seconds
    hours, rest = divmod(seconds, 3600)
    assert parse_duration(f"{hours}h{rest // 60}m{rest % 60}s") == seconds


@given(st.text(max_size=20))
def test_any_text_is_parsed_or_raises_configuration_error(text):
    try:
        assert MINIMUM_SECONDS <= parse_duration(text) <= MAXIMUM_SECONDS
    except ConfigurationError:
        pass
