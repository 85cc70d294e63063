"""The request of POST /v1/chat/completions: OpenAI's fields, and those that llama-server and vLLM add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import structs
from pydantic import Field, model_validator

from server.api.openai.fields import MOST_TOP_LOGPROBS, GenerationFields, NotYet, StrictModel

if TYPE_CHECKING:
    from server.engine.messages import Generate
    from server.models.loading import LoadedModel

MOST_MESSAGES = 10_000


class TextPart(StrictModel):
    """A piece of a message's text. Parts of other types (images, audio, files) are refused."""

    type: Literal["text"]
    text: str


class ChatMessage(StrictModel):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: Any = None
    """Accepted and without effect: clients send an answer back with all that it came with."""
    tool_calls: NotYet = None
    function_call: NotYet = None
    audio: NotYet = None

    @model_validator(mode="after")
    def _has_content(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of role {self.role} needs content")
        return self

    def plain(self) -> dict[str, Any]:
        """The message as chat templates know it: its text in one piece, and no key without a value."""
        content = self.content if self.content is not None else self.refusal or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        message: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": text}
        if self.name is not None:
            message["name"] = self.name
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        return message


class ResponseFormat(StrictModel):
    """The form of the answer: so far only text."""

    type: Literal["text"]


class ChatRequest(GenerationFields):
    """A conversation to be answered."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables for the chat template, such as `enable_thinking`."""
    tools: NotYet = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: bool | None = None
    functions: NotYet = None
    function_call: Literal["none"] | None = None
    audio: NotYet = None
    prediction: NotYet = None
    reasoning_effort: NotYet = None
    verbosity: NotYet = None
    web_search_options: NotYet = None

    @model_validator(mode="after")
    def _fields_fit(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self

    def generate(self, model: LoadedModel, partition: str) -> Generate:
        """Render the conversation with the model's template and say how to go on from there.

        Raises:
            RequestError: the template fails or refuses the conversation.
        """
        messages = model.with_preamble([message.plain() for message in self.messages])
        prompt = model.template.render(messages, variables=self.chat_template_kwargs)
        request = self.to_generate(
            prompt.text,
            defaults=model.source.parameters,
            partition=partition,
            max_tokens=self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )
        return structs.replace(request, boundaries=prompt.boundaries)
