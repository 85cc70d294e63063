"""`tools` and `tool_choice` of a chat request, and `functions` and `function_call`, their older form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from server.api.strict import StrictModel
from server.chat.tools import NamedTool, Tool, ToolChoice
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_TOOLS = 256


class Function(StrictModel):
    """A function that may be called."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON Schema; none stands for no arguments."""
    strict: bool | None = None
    """Refuses a schema that cannot be enforced; without it, calls fit the schema as far as it can be."""

    def tool(self) -> Tool:
        """The function as all protocols share it."""
        if self.parameters is None:
            return Tool(self.name, self.description or "")
        return Tool(self.name, self.description or "", self.parameters, strict=bool(self.strict))


class FunctionTool(StrictModel):
    """A tool; brim knows functions only."""

    type: Literal["function"]
    function: Function


class FunctionName(StrictModel):
    """A function among those given."""

    name: str


class NamedFunction(StrictModel):
    """The function that must be called."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(StrictModel):
    """Some of `tools`, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunction], Field(min_length=1)]


class AllowedToolsChoice(StrictModel):
    """Only some of `tools` may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


GivenChoice = Literal["none", "auto", "required"] | NamedFunction | AllowedToolsChoice
GivenFunctionChoice = Literal["none", "auto"] | FunctionName


def offered(tools: list[FunctionTool] | None, choice: GivenChoice | None) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and which must be."""
    found = tuple(tool.function.tool() for tool in tools or ())
    if isinstance(choice, NamedFunction):
        return found, NamedTool(choice.function.name)
    if isinstance(choice, AllowedToolsChoice):
        names = [one.function.name for one in choice.allowed_tools.tools]
        return allowed(found, names), choice.allowed_tools.mode
    return found, choice or "auto"


def allowed(tools: tuple[Tool, ...], names: Sequence[str]) -> tuple[Tool, ...]:
    """The tools of these names. Raises RequestError for a name that no tool has."""
    there = {tool.name for tool in tools}
    for name in names:
        if name not in there:
            raise RequestError(f"tool_choice allows a tool '{name}', which is not among tools", param="tool_choice")
    return tuple(tool for tool in tools if tool.name in names)


def offered_functions(
    functions: list[Function] | None, choice: GivenFunctionChoice | None
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """What `functions` and `function_call` say in terms of tools. Raises RequestError for a function not given."""
    found = tuple(function.tool() for function in functions or ())
    if not isinstance(choice, FunctionName):
        return found, choice or "auto"
    if all(tool.name != choice.name for tool in found):
        raise RequestError(f"there is no function '{choice.name}' among functions", param="function_call")
    return found, NamedTool(choice.name)
