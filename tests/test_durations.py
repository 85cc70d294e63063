"""Durations in all the spellings that people and clients have for them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.durations import CENTURY, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        ("0", 0),
        ("0s", 0),
        (300, 300),
        (1.5, 1.5),
        ("300", 300),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
        (" 24h ", 86400),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1m", math.inf),
        ("876600h", CENTURY),
        ("876601h", math.inf),
        (1e12, math.inf),
        (10**310, math.inf),
        (-(10**310), math.inf),
        ("9" * 310, math.inf),
    ],
)
def test_spellings(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "-", "m", "5 m", "5x", "m5", "5m!", True, None, [], math.nan, "1h 30m", "١m"])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(written)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_units_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
