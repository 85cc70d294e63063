"""Whether a model can reason before it answers, as its chat template tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from server.errors import RequestError

if TYPE_CHECKING:
    from server.models.loading import LoadedModel

Think = bool | Literal["low", "medium", "high"] | None

_SIGNS = re.compile(r"<think>|enable_thinking|reasoning_effort|reasoning_content")


def can_think(template: str) -> bool:
    """Whether a chat template knows of reasoning."""
    return bool(_SIGNS.search(template))


def thinking(model: LoadedModel, think: Think) -> tuple[bool | None, dict[str, Any]]:
    """Whether to reason, and the variables that tell the template how much.

    Raises:
        RequestError: reasoning is asked for that the model has not learned.
    """
    if think and not can_think(model.template.source):
        raise RequestError(f"{model.name} does not support thinking", code="model_not_supported", param="think")
    if isinstance(think, str):
        return True, {"reasoning_effort": think}
    return think, {}
