"""Rates as people write them: `60/minute`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_RATE = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(_SECONDS)})")


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds."""

    requests: int
    seconds: float


def parse_rate(value: object) -> Rate:
    """A rate such as `60/minute`. Raises ValueError, which says how one is written."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(str(value))
    if not found:
        raise ValueError(f"{value!r} is not a rate; write it as 60/minute, with second, minute, hour or day")
    return Rate(int(found[1]), _SECONDS[found[2]])


RateSetting = Annotated[Rate, BeforeValidator(parse_rate)]
