"""How the next token is chosen: what a request says, and the model's own parameters for what it leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

from server.engine.request import Sampling

if TYPE_CHECKING:
    from server.models.parameters import Parameters

_NAMES = frozenset(field.name for field in structs.fields(Sampling))


def sampling_of(asked: Parameters, defaults: Parameters) -> Sampling:
    """The engine's form of a request's parameters.

    Args:
        asked: what the request says.
        defaults: the model's own; what these leave open too keeps the engine's defaults.
    """
    chosen: dict[str, Any] = {name: value for name, value in asked.over(defaults).items() if name in _NAMES}
    return Sampling(**chosen)


def longest_answer(asked: int | None, defaults: Parameters) -> int | None:
    """How many tokens an answer may have; None goes on to the end of the context."""
    if asked is None and defaults.num_predict is not None and defaults.num_predict > 0:
        return defaults.num_predict
    return asked
