"""Images and sounds in requests: base64 texts and data URLs, checked where they stand."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated

from pydantic import AfterValidator

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def decode(text: str) -> bytes:
    """The bytes of a base64 text or of a data URL. Raises ValueError where it is neither."""
    if found := _DATA_URL.match(text):
        text = text[found.end() :]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise ValueError("it should be base64 text or a data URL (data:...;base64,...)")
    return data


def _check(text: str) -> str:
    decode(text)
    return text


Base64 = Annotated[str, AfterValidator(_check)]
"""Text that `decode` takes."""


def locate(text: str) -> bytes | str:
    """The bytes of a base64 text or of a data URL, or a URL to fetch them from. Raises ValueError for anything else."""
    return text if _is_link(text) else decode(text)


def _is_link(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _check_link(text: str) -> str:
    locate(text)
    return text


ImageUrl = Annotated[str, AfterValidator(_check_link)]
"""Text that `locate` takes."""
