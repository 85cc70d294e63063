"""The request of POST /v1/chat/completions: OpenAI's fields, and those that llama-server and vLLM add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import structs
from pydantic import AliasChoices, Field, model_validator

from server.api.absent import Yes  # noqa: TC001 -- Pydantic reads it
from server.api.openai.chat_messages import ChatMessage, TextPart, plain_messages
from server.api.openai.chat_tools import (
    MOST_TOOLS,
    Function,
    FunctionTool,
    GivenChoice,
    GivenFunctionChoice,
    offered,
    offered_functions,
)
from server.api.openai.fields import LARGEST_NUMBER, MOST_TOP_LOGPROBS, GenerationFields, LongestAnswer
from server.api.openai.response_format import ResponseFormat  # noqa: TC001 -- Pydantic reads it
from server.api.openai.verbosity import Verbosity, verbosity_variables
from server.api.strict import LONGEST_STOP_STRING, StrictModel, refused
from server.chat.media import Shown
from server.chat.task import ChatTask

if TYPE_CHECKING:
    from server.engine.request import Generate
    from server.models.loading import LoadedModel

MOST_MESSAGES = 10_000


class Prediction(StrictModel):
    """A text that the answer is expected to be much like."""

    type: Literal["content"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The text in one piece."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(GenerationFields):
    """A conversation to be answered."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: LongestAnswer = None
    max_completion_tokens: int | None = Field(None, ge=1, le=LARGEST_NUMBER)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables for the chat template, such as `enable_thinking`."""
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: GivenChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_format: Literal["auto", "deepseek"] | None = None
    """llama-server's; both are what brim does: reasoning in a field of its own."""
    parse_tool_calls: Yes = None
    add_generation_prompt: Yes = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """`none` answers without reasoning; templates that know efforts are told, the others reason or do not."""
    reasoning_budget_tokens: Annotated[int, Field(ge=-1, le=LARGEST_NUMBER)] | None = Field(
        None,
        validation_alias=AliasChoices("reasoning_budget_tokens", "thinking_budget_tokens", "thinking_token_budget"),
    )
    """After so many tokens reasoning is made to end, 0 ends it at once; -1 sets no bound."""
    reasoning_budget_message: Annotated[str, Field(max_length=LONGEST_STOP_STRING)] | None = None
    """What reasoning ends with that is made to end."""
    functions: Annotated[list[Function], Field(max_length=MOST_TOOLS)] | None = None
    """The older form of `tools`: the answer calls at most one, in its `function_call`."""
    function_call: GivenFunctionChoice | None = None
    audio: Annotated[Any, refused("no model here speaks")] = None
    moderation: Annotated[Any, refused("nothing here moderates")] = None
    prediction: Prediction | None = None
    """A text that the answer will be much like: where it comes true, the answer comes faster."""
    verbosity: Verbosity | None = None
    """Told to templates that know it; for all others, only `medium` is taken."""
    web_search_options: Annotated[Any, refused("nothing here searches the web")] = None

    @model_validator(mode="after")
    def _fields_fit(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        older = [name for name in ("functions", "function_call") if getattr(self, name) is not None]
        newer = [name for name in ("tools", "tool_choice") if getattr(self, name) is not None]
        if older and newer:
            raise ValueError(f"give either {older[0]}, which is the older form, or {newer[0]}: not both")
        return self

    @property
    def calls_functions(self) -> bool:
        """Whether calls are asked for in their older form."""
        return self.functions is not None

    def task(self, model: LoadedModel, partition: str) -> ChatTask:
        """What the request asks of the model.

        Raises:
            RequestError: it asks for what this model cannot do, or for what cannot be had together.
        """
        if self.functions is None and self.function_call is None:
            tools, choice = offered(self.tools, self.tool_choice)
        else:
            tools, choice = offered_functions(self.functions, self.function_call)
        shown = Shown()
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return ChatTask(
            messages=plain_messages(self.messages, shown),
            shown=shown,
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls is not False and not self.calls_functions,
            answer=self.constraint(self.response_format.grammar() if self.response_format else None),
            thinking=None if self.reasoning_effort is None else self.reasoning_effort != "none",
            reasoning_budget=None if self.reasoning_budget_tokens == -1 else self.reasoning_budget_tokens,
            reasoning_message=self.reasoning_budget_message or "",
            variables=effort
            | verbosity_variables(self.verbosity, model.template, "verbosity")
            | (self.chat_template_kwargs or {}),
            generate=self._generate(model, partition),
        )

    def _generate(self, model: LoadedModel, partition: str) -> Generate:
        generate = self.to_generate(
            "",
            defaults=model.source.parameters,
            partition=partition,
            max_tokens=self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )
        return structs.replace(generate, prediction=self.prediction.text if self.prediction else "")
