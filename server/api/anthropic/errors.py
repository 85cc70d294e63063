"""Anthropic's error object, as an answer's body and as the event that ends a stream.

Source: https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from server.errors import RequestError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(error: RequestError) -> bytes:
    """The JSON text of an error in Anthropic's form, which tells errors apart by type alone."""
    kind = _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": error.message}})


def error_event(error: RequestError) -> bytes:
    """The event that tells of a failure after a stream began; nothing follows it."""
    return b"event: error\ndata: " + anthropic_error(error) + b"\n\n"
