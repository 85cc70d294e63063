"""The request of POST /v1/completions: OpenAI's fields, and those that llama-server and vLLM add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import structs
from pydantic import Field, field_validator, model_validator

from server.api.openai.fields import MOST_CHOICES, MOST_TOP_LOGPROBS, GenerationFields, NotYet

if TYPE_CHECKING:
    from server.engine.messages import Generate
    from server.models.loading import LoadedModel

MOST_PROMPTS = 128
DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""

Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1)]


class CompletionRequest(GenerationFields):
    """One or several texts, or lists of token ids, to be continued."""

    prompt: str | Tokens | Annotated[list[str | Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)
    suffix: NotYet = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _right_kind(cls, value: Any) -> Any:
        if isinstance(value, str) or (isinstance(value, list) and value):
            return value  # pyright: ignore[reportUnknownVariableType] -- its items are checked next
        raise ValueError("it should be a text, a list of token ids, or a list of either")

    @model_validator(mode="after")
    def _fields_fit(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("best_of must not be less than n")
        if self.best_of is not None and self.best_of > (self.n or 1) and self.stream:
            raise ValueError("best_of cannot be streamed: which answers are best is known only at the end")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens may be 0 only with echo")
        return self

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or several."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        several = [part for part in self.prompt if not isinstance(part, int)]
        return several or [[part for part in self.prompt if isinstance(part, int)]]

    def generate(self, prompt: str | list[int], model: LoadedModel, partition: str) -> Generate:
        """How to continue one of the prompts."""
        defaults = model.source.parameters
        max_tokens = self.max_tokens
        if max_tokens is None and defaults.num_predict is None:
            max_tokens = DEFAULT_MAX_TOKENS
        request = self.to_generate(
            prompt, defaults=defaults, partition=partition, max_tokens=max_tokens, logprobs=self.logprobs
        )
        return structs.replace(
            request,
            best_of=max(self.best_of or 1, request.n),
            prompt_logprobs=bool(self.echo and self.logprobs is not None),
        )
