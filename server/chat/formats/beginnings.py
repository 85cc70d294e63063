"""What calls begin with, as regular expressions of Python's, by which they are found in an output."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from server.chat.tools import Tool


def any_text(texts: Iterable[str]) -> str:
    """Any of some texts; of none, nothing."""
    return f"(?:{'|'.join(map(re.escape, texts)) or '(?!)'})"


def any_name(tools: Sequence[Tool]) -> str:
    """The name of any of `tools`."""
    return any_text(tool.name for tool in tools)


def json_begun(tools: Sequence[Tool]) -> str:
    """A call in JSON, or a list of them, up to the first one's name."""
    return rf'(?:\[\s*)?\{{\s*(?:"type"\s*:\s*"function"\s*,\s*)*"(?:tool_)?name"\s*:\s*"{any_name(tools)}"'
