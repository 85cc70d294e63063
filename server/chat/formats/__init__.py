"""Chat formats, one module each, and the choice of the one that a model's template is written for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.hermes import Hermes
from server.chat.formats.plain import Plain
from server.errors import BrimError

if TYPE_CHECKING:
    from server.chat.formats.base import ChatFormat

FORMATS: tuple[ChatFormat, ...] = (Hermes(), Plain())
"""All formats. The first that recognises a template is its format."""

FALLBACK: ChatFormat = FORMATS[0]
"""For templates of no known format: most models write it when they are told how."""


def detect(template: str) -> ChatFormat:
    """The format that a chat template's source is written for, or the fallback where it shows none."""
    return next((known for known in FORMATS if known.recognises(template)), FALLBACK)


def named(name: str) -> ChatFormat:
    """The format of that name. Raises BrimError, which lists the names there are."""
    for known in FORMATS:
        if known.name == name:
            return known
    raise BrimError(f"there is no chat format {name!r}; there are {', '.join(known.name for known in FORMATS)}")
