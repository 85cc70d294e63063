"""The examples of all formats, gathered from their tests."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from server.chat.formats import FORMATS

if TYPE_CHECKING:
    from tests.chat.formats.reading import Example

OF_ALL = ("test_every_format", "test_optional_calls")
"""Tests that use what is gathered here."""
CALLING = [style.name for style in FORMATS if style.name != "plain"]


def _tables() -> dict[str, list[Example]]:
    tables: dict[str, list[Example]] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith("test_") and module.name not in OF_ALL:
            found = importlib.import_module(f"tests.chat.formats.{module.name}")
            tables |= getattr(found, "TABLES", {})
    return tables


EXAMPLES = _tables()
