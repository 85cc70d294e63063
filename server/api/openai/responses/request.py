"""The requests of POST /v1/responses and /v1/responses/input_tokens.

Every field of OpenAI's reference is here: honoured, refused for a reason, or accepted because it means nothing on
one's own machine. Any other field is refused by name.
Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from server.api.openai.fields import MOST_TOP_LOGPROBS, MeaninglessFields
from server.api.openai.responses.conversation import to_messages
from server.api.openai.responses.items import MOST_ITEMS, AnyItem, Known
from server.api.openai.responses.options import (
    MOST_TOOLS,
    AnyTool,
    GivenChoice,
    PlainText,
    ReasoningOptions,
    TextOptions,
    described,
    offered,
)
from server.api.openai.verbosity import verbosity_variables
from server.api.sampling import longest_answer, sampling_of
from server.api.strict import StrictModel, refused
from server.api.whole_text import WholeTextRequest
from server.chat.media import Shown
from server.chat.task import ChatTask
from server.engine.request import Generate
from server.errors import RequestError
from server.models.loading import LoadedModel
from server.models.parameters import Parameters

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""The first two have a meaning here; the others tell of tools and media that no response of brim's holds."""

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class InputTokensRequest(WholeTextRequest):
    """A conversation, of which the tokens are to be counted."""

    model: str | None = None
    """A model's name; may be left out where just one is loaded."""
    input: str | Annotated[list[AnyItem], Field(max_length=MOST_ITEMS)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: Annotated[list[AnyTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: GivenChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    conversation: Annotated[Any, refused("brim keeps no conversations; use previous_response_id")] = None
    personality: Annotated[Any, refused("brim has no personalities; say it in the instructions")] = None

    def task(self, items: Sequence[Known], model: LoadedModel, partition: str) -> ChatTask:
        """What the request asks of the model.

        Args:
            items: the whole conversation.
            model: who answers.
            partition: the caller's cache partition.

        Raises:
            RequestError: there is nothing to answer.
        """
        shown = Shown()
        messages = to_messages(self.instructions, items, shown)
        if not messages:
            raise RequestError("there is nothing to answer: give 'input'", param="input")
        text, reasoning = self.text or TextOptions(), self.reasoning or ReasoningOptions()
        tools, choice = offered(self.tools, self.tool_choice)
        return ChatTask(
            messages=messages,
            shown=shown,
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            answer=text.format.grammar() if text.format else None,
            thinking=reasoning.thinking,
            variables=reasoning.variables | verbosity_variables(text.verbosity, model.template, "text.verbosity"),
            generate=self._generate(model, partition),
        )

    def room(self, context: int) -> int:
        """How many tokens of a context are to be left for the answer where the conversation may be truncated."""
        return context // 4

    def _generate(self, model: LoadedModel, partition: str) -> Generate:
        return Generate(id=0, prompt="", partition=partition)


class ResponseStreamOptions(StrictModel):
    """What a stream carries beside the response."""

    include_obfuscation: bool | None = None
    """Accepted and without effect: it pads events against eavesdroppers on a network."""


class ResponseRequest(InputTokensRequest, MeaninglessFields):
    """A conversation to be answered."""

    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    include: list[Include] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    max_tool_calls: int | None = Field(None, ge=1)
    """Accepted and without effect: it counts calls of tools that OpenAI runs."""
    client_metadata: Any = None
    """Accepted and without effect: what Codex says of itself."""
    background: (
        Annotated[Any, refused("brim makes no response in the background; hold the connection")] | Literal[False]
    ) = None
    background_options: Annotated[Any, refused("brim makes no response in the background")] = None
    context_management: Annotated[Any, refused("brim compacts nothing; truncation: auto leaves out first turns")] = None
    prompt: Annotated[Any, refused("brim keeps no prompts; send the prompt itself")] = None
    moderation: Annotated[Any, refused("brim has no moderation")] = None
    access_programs: Annotated[Any, refused("brim has no access programs")] = None
    image: Annotated[Any, refused("brim makes and reads no images here")] = None

    @property
    def with_logprobs(self) -> bool:
        """Whether the answer's tokens are told with their log-probabilities."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    @property
    def with_encrypted(self) -> bool:
        """Whether thoughts also come as `encrypted_content`."""
        return ENCRYPTED in (self.include or ())

    def room(self, context: int) -> int:
        """As many as the answer may have, but at most half of the context."""
        return min(self.max_output_tokens, context // 2) if self.max_output_tokens else super().room(context)

    def _generate(self, model: LoadedModel, partition: str) -> Generate:
        defaults = model.source.parameters
        return Generate(
            id=0,
            prompt="",
            sampling=sampling_of(Parameters(temperature=self.temperature, top_p=self.top_p), defaults),
            max_tokens=longest_answer(self.max_output_tokens, defaults),
            stop=list(defaults.stop),
            logprobs=(self.top_logprobs or 0) if self.with_logprobs else None,
            partition=partition,
        )

    def describe(self) -> dict[str, Any]:
        """What a response object repeats of its request."""
        text, reasoning = self.text or TextOptions(), self.reasoning or ReasoningOptions()
        choice = self.tool_choice or "auto"
        return {
            "background": False,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary or reasoning.generate_summary},
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": self.store is not False,
            "temperature": self.temperature,
            "text": {
                "format": (text.format or PlainText()).model_dump(by_alias=True, exclude_none=True),
                "verbosity": text.verbosity or "medium",
            },
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [described(tool) for tool in self.tools or ()],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": self.top_p,
            "truncation": self.truncation or "disabled",
            "user": self.user,
        }
