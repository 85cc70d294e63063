"""`tools` and `tool_choice` of Anthropic's messages."""

from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import Field, field_validator, model_validator

from server.api.anthropic.blocks import CacheControl
from server.api.strict import StrictModel
from server.chat.tools import NamedTool, Tool, ToolChoice

MOST_TOOLS = 256
DIRECT = "direct"


class CustomTool(StrictModel):
    """A tool of the client's own. Anthropic's tools, which its servers run or know by heart, are refused by name."""

    type: str | None = None
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    input_schema: dict[str, Any]
    """A JSON Schema of the tool's arguments."""
    input_examples: list[dict[str, Any]] | None = None
    """Shown to the model behind the description."""
    strict: bool | None = None
    """Refuses a schema that cannot be enforced; without it, calls fit the schema as far as it can be."""
    eager_input_streaming: bool | None = None
    """Without effect: arguments always stream as they come."""
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    cache_control: CacheControl | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_custom(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
        if kind not in (None, "custom"):
            raise ValueError(f"brim has no tool {kind}: describe it as a tool of your own, with name and input_schema")
        return value  # pyright: ignore[reportUnknownVariableType]

    @field_validator("allowed_callers")
    @classmethod
    def _directly(cls, value: list[str] | None) -> list[str] | None:
        if value and DIRECT not in value:
            raise ValueError("only the model itself can call a tool; leave it out or allow 'direct'")
        return value

    @field_validator("defer_loading")
    @classmethod
    def _at_once(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("brim has no tool search: every tool is shown to the model; leave it false")
        return value

    def tool(self) -> Tool:
        """The tool as all protocols share it."""
        examples = [msgspec.json.encode(example).decode() for example in self.input_examples or ()]
        shown = ["Examples:", *examples] if examples else []
        description = "\n".join([*([self.description] if self.description else []), *shown])
        return Tool(self.name, description, self.input_schema, strict=bool(self.strict))


class GivenChoice(StrictModel):
    """Whether a tool must be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.name is not None) != (self.type == "tool"):
            raise ValueError("a tool_choice of type tool needs the tool's name, and no other type has one")
        return self

    def choice(self) -> ToolChoice:
        """The choice as all protocols share it."""
        match self.type:
            case "any":
                return "required"
            case "tool":
                assert self.name is not None
                return NamedTool(self.name)
            case "auto" | "none":
                return self.type
