"""Durations as people and Ollama's clients write them: `300`, `5m`, `1h30m`, `500ms`; a negative one is for ever.

So is one of more than a century: no date lies behind it that every clock and calendar knows.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

CENTURY = 100 * 365.25 * 86_400.0
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def parse_duration(value: object) -> float:
    """Seconds of a duration; infinity for a negative one, and for one of more than a century.

    Args:
        value: a number of seconds, one as text, or numbers with the units h, m, s, ms, us and ns in a row.

    Raises:
        ValueError: it is no duration; the message says how one is written.
    """
    try:
        seconds = _seconds(value)
    except OverflowError:  # a whole number larger than a float can be
        return math.inf
    if seconds is None or math.isnan(seconds):
        raise ValueError(f"{value!r} is not a duration; write it as 300, 5m, 1h30m or -1 (for ever)")
    return seconds if 0 <= seconds <= CENTURY else math.inf


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return float(value)
    text = value.strip()
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", digits):
        return sign * float(digits)
    parts = _PART.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        return None
    return sign * sum(float(number) * _SECONDS[unit] for number, unit in parts)


Duration = Annotated[float, BeforeValidator(parse_duration)]
