"""Durations are read and written exactly, and nothing else passes for one."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings, strategies as st

from trio_services.config import Seconds
from trio_services.config._durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86400),
        ("0s", 0),
        ("0.1h", 360),
        ("1 s", 1),
    ],
)
def test_duration_is_read(text: str, seconds: Seconds) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "1",
        "1.s",
        ".5s",
        "1e3s",
        "+1s",
        "-1s",
        "1  s",
        "1S",
        "1w",
        "1h30m",
        "infs",
        "1s\n",
        "\u0665s",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0, "0s"),
        (90, "90s"),
        (120.0, "2m"),
        (86400, "1d"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
    ],
)
def test_duration_is_written_in_the_largest_unit_that_is_exact(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=1e17))
@example(0.1)
@example(5e-324)
@example(1e16)
@example(math.nextafter(1, 2))
def test_written_duration_is_read_back_exactly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
