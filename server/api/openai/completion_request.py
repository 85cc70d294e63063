"""The request of POST /v1/completions: OpenAI's fields, and those that llama-server and vLLM add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import structs
from pydantic import Field, field_validator, model_validator

from server.api.openai.fields import MOST_CHOICES, MOST_TOP_LOGPROBS, GenerationFields, LongestText
from server.api.openai.response_format import ResponseFormat  # noqa: TC001 -- Pydantic reads it

if TYPE_CHECKING:
    from server.engine.request import Generate
    from server.models.loading import LoadedModel

MOST_PROMPTS = 128
DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""

Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1)]


def of_right_kind(value: Any, most: int) -> Any:
    """Tell at once, and in few words, what is neither a text nor a list, or holds more than `most` of them.

    Raises:
        ValueError: it is so.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError("it should be a text, a list of token ids, or a list of either")
    items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] -- its items are checked next
    if len(items) > most and not isinstance(items[0], int):
        raise ValueError(f"it has {len(items)} entries; give at most {most}")
    return items


def one_or_several(given: str | list[int] | list[str | list[int]]) -> list[str | list[int]]:
    """A field's texts or token lists, be there one or several."""
    if isinstance(given, str):
        return [given]
    several = [part for part in given if not isinstance(part, int)]
    return several or [[part for part in given if isinstance(part, int)]]


class CompletionRequest(GenerationFields):
    """One or several texts, or lists of token ids, to be continued."""

    prompt: str | Tokens | Annotated[list[str | Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    max_tokens: LongestText = None
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)
    suffix: str | None = None
    """What follows the text that is to be found; for models with fill-in-the-middle tokens."""
    response_format: ResponseFormat | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _right_kind(cls, value: Any) -> Any:
        return of_right_kind(value, MOST_PROMPTS)

    @model_validator(mode="after")
    def _fields_fit(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("best_of must not be less than n")
        if self.best_of is not None and self.best_of > (self.n or 1) and self.stream:
            raise ValueError("best_of cannot be streamed: which answers are best is known only at the end")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens may be 0 only with echo")
        if self.suffix and self.echo:
            raise ValueError("echo and suffix cannot be had together: between them lies what is generated")
        return self

    def generate(self, prompt: str | list[int], model: LoadedModel, partition: str) -> Generate:
        """How to continue one of the prompts. Raises RequestError where the constraints cannot be had together."""
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
            grammar=self.constraint(self.response_format.grammar() if self.response_format else None),
            prompt_logprobs=bool(self.echo and self.logprobs is not None),
        )
