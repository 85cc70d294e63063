"""Sizes as people write them: `6GiB` and `512MiB` count in powers of 1024, `6GB` and `500MB` in powers of 1000."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)(B?)\s*", re.IGNORECASE)
_EXPONENT = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str | int) -> int:
    """Turn `6GiB`, `1.5GB`, `512 MiB` or a plain number of bytes into bytes.

    Raises:
        ValueError: the text is not a size; the message says how one is written.
    """
    if isinstance(text, int):
        if text < 0:
            raise ValueError("a size cannot be negative")
        return text
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]) or (match[2] and not match[4]):
        raise ValueError(f"'{text}' is not a size; write it as 6GiB, 512MiB, 4GB or a number of bytes")
    base = 1024 if match[3] else 1000
    return int(Decimal(match[1]) * base ** _EXPONENT[match[2].upper()])


def format_size(size: float) -> str:
    """Write bytes with the binary unit that leaves one to four digits: `13.5 GiB`."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    index = 0
    while abs(size) >= 1024 and index < len(units) - 1:
        size /= 1024
        index += 1
    return f"{size:.0f} B" if index == 0 else f"{size:.1f} {units[index]}"


Size = Annotated[int, BeforeValidator(parse_size)]
