"""The model families that can be converted: one module each, all of one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from converter.architectures import llama, qwen2
from converter.architectures.architecture import Architecture, Hyperparameters
from converter.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ARCHITECTURES", "Architecture", "Hyperparameters", "find_architecture"]

ARCHITECTURES = (llama.ARCHITECTURE, qwen2.ARCHITECTURE)


def find_architecture(config: Mapping[str, Any]) -> Architecture:
    """The family that covers config.json's `architectures`.

    Raises:
        ConversionError: config.json names none, or one that no family covers; the sentence lists those supported.
    """
    named = config.get("architectures")
    classes = cast("list[Any]", named) if isinstance(named, list) else []
    for architecture in ARCHITECTURES:
        if any(model_class in architecture.model_classes for model_class in classes):
            return architecture
    supported = ", ".join(name for architecture in ARCHITECTURES for name in architecture.model_classes)
    if not classes:
        raise ConversionError(f"config.json names no model class under `architectures`; supported are {supported}.")
    raise ConversionError(f"{classes[0]} is not supported yet; supported are {supported}.")
