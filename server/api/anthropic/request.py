"""The requests of POST /v1/messages and /v1/messages/count_tokens.

Every field of Anthropic's reference is here: honoured, refused for a reason, or accepted because it means nothing
on one's own machine. Any other field is refused by name.
Source: https://docs.anthropic.com/en/api/messages
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from server.api.anthropic.blocks import AnyBlock, CacheControl, TextBlock
from server.api.anthropic.conversation import to_messages
from server.api.anthropic.tools import MOST_TOOLS, CustomTool, GivenChoice
from server.api.sampling import longest_answer, sampling_of
from server.api.strict import LONGEST_STOP_STRING, StrictModel, refused
from server.api.whole_text import WholeTextRequest
from server.chat.media import Shown
from server.chat.task import ChatTask
from server.engine.request import Generate, Grammar
from server.models.loading import LoadedModel
from server.models.parameters import Parameters

MOST_MESSAGES = 10_000
MOST_STOP_SEQUENCES = 64

_BLOCKS_OF = {
    "system": ("text",),
    "user": ("text", "image", "document", "search_result", "tool_result"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
}
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Templates that know efforts know three."""


class Message(StrictModel):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[AnyBlock]

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        for block in [] if isinstance(self.content, str) else self.content:
            if block.type not in _BLOCKS_OF[self.role]:
                raise ValueError(f"a message of role {self.role} cannot have a block of type {block.type}")
        return self


class Thinking(StrictModel):
    """Whether to think before answering."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=1)
    """After so many tokens thinking is made to end."""
    display: Literal["summarized", "omitted"] | None = None
    """`summarized` shows the thoughts whole: brim does not summarise."""


class JsonFormat(StrictModel):
    """A JSON Schema that the answer's text is held to."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(StrictModel):
    """The form of the answer, and how much to think for it."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class ContextEdit(StrictModel):
    """What to leave out of the conversation. Thoughts of earlier turns are the template's own business."""

    type: Literal["clear_thinking_20251015"]
    keep: Literal["all"]


class ContextManagement(StrictModel):
    """What Claude Code sends; only the editing that changes nothing is taken."""

    edits: list[ContextEdit] = Field(default_factory=list[ContextEdit])


class CountTokensRequest(WholeTextRequest):
    """A conversation, of which the tokens are to be counted."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[CustomTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: GivenChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    context_management: ContextManagement | None = None
    cache_control: CacheControl | None = None
    speed: Any = None
    user_profile_id: Any = None
    workspace_id: Any = None
    mcp_servers: Annotated[Any, refused("brim calls no servers; call them yourself and offer their tools")] = None

    def task(self, model: LoadedModel, partition: str) -> ChatTask:
        """What the request asks of the model."""
        return self._task(self._generate(model, partition))

    def _generate(self, model: LoadedModel, partition: str) -> Generate:
        return Generate(id=0, prompt="", partition=partition)

    def _task(self, generate: Generate) -> ChatTask:
        config = self.output_config or OutputConfig()
        choice = self.tool_choice
        shown = Shown()
        return ChatTask(
            messages=to_messages(self.system, [(message.role, message.content) for message in self.messages], shown),
            shown=shown,
            tools=tuple(tool.tool() for tool in self.tools or ()),
            tool_choice=choice.choice() if choice else "auto",
            parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
            answer=Grammar.of_schema(config.format.schema_) if config.format else None,
            thinking=_THINKS[self.thinking.type] if self.thinking else None,
            reasoning_budget=self.thinking.budget_tokens if self.thinking else None,
            variables={"reasoning_effort": _EFFORTS.get(config.effort, config.effort)} if config.effort else {},
            generate=generate,
        )


_THINKS = {"enabled": True, "disabled": False, "adaptive": None}


class MessagesRequest(CountTokensRequest):
    """A conversation to be answered."""

    max_tokens: int = Field(ge=1)
    stop_sequences: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP_STRING)]],
            Field(max_length=MOST_STOP_SEQUENCES),
        ]
        | None
    ) = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, lt=2**31)
    metadata: Any = None
    service_tier: Any = None
    inference_geo: Any = None
    container: Annotated[Any, refused("brim runs no code")] = None
    diagnostics: Annotated[Any, refused("brim does not diagnose its cache; usage tells what was found in it")] = None

    @field_validator("metadata")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, dict):
            raise ValueError("it should be an object")
        return value  # pyright: ignore[reportUnknownVariableType]

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        budget = self.thinking.budget_tokens if self.thinking else None
        if budget is not None and budget >= self.max_tokens:
            raise ValueError("max_tokens must be greater than thinking.budget_tokens, which count towards it")
        return self

    @property
    def shows_thinking(self) -> bool:
        """Whether thoughts are sent."""
        return not (self.thinking and self.thinking.display == "omitted")

    def _generate(self, model: LoadedModel, partition: str) -> Generate:
        defaults = model.source.parameters
        asked = Parameters(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)
        return Generate(
            id=0,
            prompt="",
            sampling=sampling_of(asked, defaults),
            max_tokens=longest_answer(self.max_tokens, defaults),
            stop=list(defaults.stop) if self.stop_sequences is None else self.stop_sequences,
            partition=partition,
        )
