"""Ollama's error object: one sentence, which its clients show as it is; the status says the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from server.errors import RequestError


def ollama_error(error: RequestError) -> bytes:
    """The JSON text of an error in Ollama's form."""
    return msgspec.json.encode({"error": error.message})
