"""Tools that a conversation offers, and which of them its answer must call."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field


class Tool(Struct, frozen=True):
    """A function that the model may call.

    Attributes:
        name: what calls say.
        description: what it is for, as the model is told.
        parameters: the JSON Schema of its arguments, an object.
        strict: whether a schema that cannot be enforced is refused; else calls fit it as far as it can be.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False

    def declared(self) -> dict[str, Any]:
        """The tool as chat templates know it: OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


class NamedTool(Struct, frozen=True):
    """The answer must call just this tool."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool
