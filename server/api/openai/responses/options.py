"""What a request for a response says beside its input: tools, the form of the answer, how much to think for it.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from typing import Annotated, Any, Literal

from msgspec import structs
from pydantic import Field, field_validator

from server.api.openai.chat_tools import allowed
from server.api.openai.verbosity import Verbosity
from server.api.strict import Off, StrictModel, refused
from server.api.tagged import tagged
from server.chat.tools import NamedTool, Tool, ToolChoice
from server.engine.request import Grammar

MOST_TOOLS = 256
FunctionName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Templates that know efforts know three."""


class FunctionTool(StrictModel):
    """A function that may be called."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON Schema; none stands for no arguments."""
    strict: bool | None = None
    """Refuses a schema that cannot be enforced; without it, calls fit the schema as far as it can be."""
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None
    output_schema: Annotated[Any, refused("brim does not check what tools give")] = None
    async_: Annotated[Off, Field(alias="async")] = None

    @field_validator("defer_loading")
    @classmethod
    def _at_once(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("brim has no tool search: every tool is shown to the model; leave it false")
        return value

    @field_validator("allowed_callers")
    @classmethod
    def _directly(cls, value: list[str] | None) -> list[str] | None:
        if value and "direct" not in value:
            raise ValueError("only the model itself can call a tool; leave it out or allow 'direct'")
        return value

    def tool(self) -> Tool:
        """The tool as all protocols share it."""
        if self.parameters is None:
            return Tool(self.name, self.description or "")
        return Tool(self.name, self.description or "", self.parameters, strict=bool(self.strict))


class Namespace(StrictModel):
    """Functions under a common name, which calls tell apart from their own."""

    type: Literal["namespace"]
    name: FunctionName
    description: str | None = None
    tools: Annotated[
        list[Annotated[FunctionTool, tagged("tool of a namespace", {"function": FunctionTool})]],
        Field(max_length=MOST_TOOLS),
    ]

    def functions(self) -> list[Tool]:
        """Its tools under their whole names. The first one's description begins with that of the namespace."""
        found = [structs.replace(one.tool(), name=whole_name(self.name, one.name)) for one in self.tools]
        if found and self.description:
            told = "\n\n".join(text for text in (self.description, found[0].description) if text)
            found[0] = structs.replace(found[0], description=told)
        return found


class WebSearch(StrictModel):
    """A search that may not leave the server. It would find nothing here, and is not offered to the model."""

    type: Literal["web_search", "web_search_preview"]
    external_web_access: Annotated[bool | None, Field(validate_default=True)] = None
    filters: Any = None
    search_context_size: Any = None
    search_content_types: Any = None
    user_location: Any = None

    @field_validator("external_web_access")
    @classmethod
    def _stays_here(cls, value: bool | None) -> bool | None:
        if value is not False:
            raise ValueError("brim searches no web; leave the tool out, or make this false")
        return value


AnyTool = Annotated[
    FunctionTool | Namespace | WebSearch,
    tagged(
        "tool",
        {
            "function": FunctionTool,
            "namespace": Namespace,
            "web_search": WebSearch,
            "web_search_preview": WebSearch,
        },
    ),
]


def whole_name(namespace: str | None, name: str) -> str:
    """What the model calls a function by."""
    return f"{namespace}__{name}" if namespace else name


class FunctionChoice(StrictModel):
    """The function that must be called."""

    type: Literal["function"]
    name: str


class AllowedTools(StrictModel):
    """Only some of `tools` may be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[Annotated[FunctionChoice, tagged("tool", {"function": FunctionChoice})]], Field(min_length=1)]


GivenChoice = (
    Literal["none", "auto", "required"]
    | Annotated[
        FunctionChoice | AllowedTools,
        tagged("tool choice", {"function": FunctionChoice, "allowed_tools": AllowedTools}),
    ]
)


def offered(tools: list[AnyTool] | None, choice: GivenChoice | None) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and which must be."""
    found = tuple(function for tool in tools or () for function in _functions(tool))
    match choice:
        case FunctionChoice():
            return found, NamedTool(choice.name)
        case AllowedTools():
            return allowed(found, [one.name for one in choice.tools]), choice.mode
        case _:
            return found, choice or "auto"


def _functions(tool: AnyTool) -> list[Tool]:
    match tool:
        case FunctionTool():
            return [tool.tool()]
        case Namespace():
            return tool.functions()
        case WebSearch():
            return []


def described(tool: AnyTool) -> dict[str, Any]:
    """A tool as a response object repeats it."""
    always = {"strict": tool.strict, "parameters": tool.parameters} if isinstance(tool, FunctionTool) else {}
    return always | tool.model_dump(by_alias=True, exclude_none=True)


def namespaces(tools: list[AnyTool] | None) -> dict[str, tuple[str, str]]:
    """Each namespace and name of its functions, by the whole name."""
    return {
        whole_name(tool.name, one.name): (tool.name, one.name)
        for tool in tools or ()
        if isinstance(tool, Namespace)
        for one in tool.tools
    }


class PlainText(StrictModel):
    """Any text."""

    type: Literal["text"] = "text"

    def grammar(self) -> None:
        """Text is not constrained."""


class JsonObject(StrictModel):
    """Any JSON object."""

    type: Literal["json_object"]

    def grammar(self) -> Grammar:
        """The constraint for the engine."""
        return Grammar("json_object", "")


class JsonSchema(StrictModel):
    """JSON that a schema holds for. The name and the description serve the caller."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None
    """Without effect: a schema always holds."""

    def grammar(self) -> Grammar:
        """The constraint for the engine."""
        return Grammar.of_schema(self.schema_)


AnyFormat = Annotated[
    PlainText | JsonObject | JsonSchema,
    tagged("text format", {"text": PlainText, "json_object": JsonObject, "json_schema": JsonSchema}),
]


class TextOptions(StrictModel):
    """The form of the answer's text."""

    format: AnyFormat | None = None
    verbosity: Verbosity | None = None
    """Told to templates that know it; for all others, only `medium` is taken."""


class ReasoningOptions(StrictModel):
    """How much to think before answering."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """`none` answers without thinking; templates that know efforts are told, the others think or do not."""
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Without effect: thoughts are given whole."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """The former name of `summary`."""
    context: Annotated[Any, refused("brim gives the model all reasoning that its template takes")] = None
    mode: Annotated[Any, refused("brim knows one mode only; leave it out")] = None

    @property
    def thinking(self) -> bool | None:
        """Whether to think; None leaves it to the template."""
        return None if self.effort is None else self.effort != "none"

    @property
    def variables(self) -> dict[str, str]:
        """What the template is told."""
        return {"reasoning_effort": _EFFORTS.get(self.effort, self.effort)} if self.effort else {}
