"""What the requests of all protocols are made of: models that let nothing pass unseen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

LONGEST_STOP_STRING = 1000


class StrictModel(BaseModel):
    """A part of a request: no type is coerced, no unknown field passes."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _no_number(value: Any) -> Any:
    """To Python 0 is equal to False, but it is no JSON boolean."""
    if isinstance(value, bool) or value is None:
        return value
    raise ValueError("it should be false")


Off = Annotated[Literal[False] | None, BeforeValidator(_no_number)]
"""What can be said to be off, and not be turned on."""


def refused(reason: str) -> BeforeValidator:
    """Marks a field that is known and cannot be honoured: any value but null is refused for this reason."""

    def refuse(value: Any) -> None:
        if value is not None:
            raise ValueError(reason)

    return BeforeValidator(refuse)
