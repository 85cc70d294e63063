"""JSON objects told apart by their `type`, whose faults are reported at the field itself and in words that help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, WrapValidator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def tagged(
    what: str,
    models: Mapping[str, type[BaseModel]],
    *,
    refused: Mapping[str, str] | None = None,
    untagged: Callable[[dict[str, Any]], str | None] = lambda value: None,
) -> WrapValidator:
    """Make a validator that chooses a field's model by its value's type.

    A field is declared as `Annotated[A | B, tagged("shape", {"a": A, "b": B})]`.

    Pydantic's own tagged unions write the tag into an error's location, as if it were a field.

    Args:
        what: what such an object is, as in `content block`.
        models: by their `type`.
        refused: further types, each with the reason why brim does not take it.
        untagged: gives the `type` of an object that has none, or None.
    """

    def validate(value: Any, untold: Callable[[Any], Any]) -> BaseModel:
        if not isinstance(value, dict):
            raise ValueError(f"it should be {_a(what)}, which is an object with a type")
        given: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        kind = str(given.get("type") or untagged(given) or "")
        if kind in models:
            return models[kind].model_validate(given)
        if reason := (refused or {}).get(kind):
            raise ValueError(reason)
        there = ", ".join(models)
        raise ValueError(
            f"brim takes no {what} of type '{kind}'; there are {there}"
            if kind
            else f"{_a(what)} needs a type; there are {there}"
        )

    return WrapValidator(validate)


def _a(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"
