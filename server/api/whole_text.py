"""Requests of which every text can be written again: in an answer, in a schema for the engine, in a file."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import model_validator

from server.api.strict import StrictModel


class WholeTextRequest(StrictModel):
    """A request without halves of surrogate pairs, which JSON can spell but no text has."""

    @model_validator(mode="before")
    @classmethod
    def _is_writable(cls, value: Any) -> Any:
        try:
            msgspec.json.encode(value)
        except UnicodeEncodeError:
            raise ValueError("the body holds text that is not Unicode: half of a surrogate pair") from None
        return value
