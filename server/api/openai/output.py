"""The parts that OpenAI's answers share: token counts, timings and log-probabilities."""

from __future__ import annotations

import math
import secrets
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field

from server.engine.messages import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.chat.answer import ChatFinish
    from server.engine.messages import FinishReason, PromptProgress, TokenLogprob
    from server.models.loading import LoadedModel

Finish = Literal["stop", "length", "tool_calls", "function_call"]


class TokenDetails(Struct):
    """How many of the prompt's tokens were found in the prefix cache."""

    cached_tokens: int


class CompletionTokenDetails(Struct):
    """How many of the generated tokens were spent on reasoning, and how the request's prediction did.

    Accepted and rejected are those tokens of the prediction that were proposed: OpenAI counts the rejected ones as
    generated, here they are not.
    """

    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class UsageObject(Struct):
    """OpenAI's `usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails
    completion_tokens_details: CompletionTokenDetails


class TopLogprob(Struct):
    """One of a token's likeliest alternatives."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(Struct):
    """A generated token in chat form."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob] = field(default_factory=list[TopLogprob])


class ChatLogprobs(Struct):
    """The tokens of a chat answer, or of one event of its stream."""

    content: list[ChatLogprob]
    refusal: None = None


class TextLogprobs(Struct):
    """The tokens of a completion: four lists side by side. A prompt's first token has no log-probability."""

    tokens: list[str] = field(default_factory=list[str])
    token_logprobs: list[float | None] = field(default_factory=list["float | None"])
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list["dict[str, float] | None"])
    text_offset: list[int] = field(default_factory=list[int])


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-4be1...`."""
    return f"{prefix}-{secrets.token_hex(16)}"


def now() -> int:
    """Seconds since the epoch."""
    return int(time.time())


def finish_reason(reason: FinishReason | ChatFinish) -> Finish:
    """A reason in OpenAI's words, which know one for an answer cut short by a limit, be it of tokens or of time."""
    if reason == "tool_calls":
        return reason
    return "length" if reason in ("length", "time") else "stop"


def add_usage(parts: Iterable[Usage], *, reasoning: int = 0) -> UsageObject:
    """OpenAI's `usage` for one or several prompts, with `reasoning` of the generated tokens spent on that."""
    usage = _sum(parts)
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    accepted = usage.accepted_predicted_tokens
    details = CompletionTokenDetails(reasoning, accepted, usage.predicted_tokens - accepted)
    return UsageObject(prompt, completion, prompt + completion, TokenDetails(usage.cached_tokens), details)


def _sum(parts: Iterable[Usage]) -> Usage:
    parts = list(parts)
    return Usage(**{name: sum(getattr(usage, name) for usage in parts) for name in Usage.__struct_fields__})


def timings(*parts: Usage) -> dict[str, Any]:
    """llama-server's `timings`, under its names; milliseconds, which add up where several prompts go side by side."""
    usage = _sum(parts)
    computed = usage.prompt_tokens - usage.cached_tokens
    prompt_ms, predicted_ms = usage.prompt_seconds * 1000, usage.generation_seconds * 1000
    found: dict[str, Any] = {
        "cache_n": usage.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": _ratio(prompt_ms, computed),
        "prompt_per_second": _ratio(computed, usage.prompt_seconds),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": _ratio(predicted_ms, usage.completion_tokens),
        "predicted_per_second": _ratio(usage.completion_tokens, usage.generation_seconds),
        "queue_ms": usage.queue_seconds * 1000,
    }
    if usage.drafted_tokens:
        found |= {"draft_n": usage.drafted_tokens, "draft_n_accepted": usage.accepted_tokens}
    return found


def prompt_progress(progress: PromptProgress) -> dict[str, Any]:
    """llama-server's `prompt_progress`, under its names."""
    return {
        "total": progress.total,
        "cache": progress.cached,
        "processed": progress.processed,
        "time_ms": round(progress.seconds * 1000),
    }


def _ratio(over: float, under: float) -> float:
    return over / under if under else 0.0


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> ChatLogprobs:
    """Translate log-probabilities into chat form."""
    return ChatLogprobs(
        [
            ChatLogprob(
                token=_text(one.piece),
                logprob=one.logprob,
                bytes=list(one.piece),
                top_logprobs=[TopLogprob(_text(piece), logprob, list(piece)) for _, piece, logprob in one.top],
            )
            for one in tokens
        ]
    )


class TextLogprobWriter:
    """Translates log-probabilities into completion form, counting characters from `offset` on."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset

    def write(self, tokens: Iterable[TokenLogprob]) -> TextLogprobs:
        """The next tokens of a choice."""
        found = TextLogprobs()
        for one in tokens:
            unknown = math.isnan(one.logprob)
            found.tokens.append(_text(one.piece))
            found.token_logprobs.append(None if unknown else one.logprob)
            found.top_logprobs.append(None if unknown else _by_text(one))
            found.text_offset.append(self._offset)
            self._offset += len(_text(one.piece))
        return found


def _by_text(one: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens and the chosen one; of those with the same text, such as halves of characters, the first."""
    found: dict[str, float] = {}
    for _, piece, logprob in (*one.top, (one.token, one.piece, one.logprob)):
        found.setdefault(_text(piece), logprob)
    return found


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", errors="replace")


def fingerprint(model: LoadedModel) -> str:
    """OpenAI's `system_fingerprint`: the same for the same weights."""
    return f"brim-{model.source.digest[-12:]}"


class ChunkWriter:
    """Writes the events of a stream by joining bytes: all but the choice itself is the same in each.

    Args:
        prefix: of the answer's id.
        kind: the chunk's `object`.
        model: who answers.
        with_usage: OpenAI adds `"usage": null` to every chunk but the last where usage was asked for.
    """

    def __init__(self, prefix: str, kind: str, model: LoadedModel, *, with_usage: bool) -> None:
        names = {
            "id": new_id(prefix),
            "object": kind,
            "created": now(),
            "model": model.name,
            "system_fingerprint": fingerprint(model),
        }
        self._head = b"data: " + msgspec.json.encode(names)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if with_usage else b"]}\n\n"

    def choice(self, opened: bytes, finish: Finish | None = None) -> bytes:
        """An event with one choice, whose JSON object is given without `finish_reason` and its closing brace."""
        ending = b',"finish_reason":"%b"}' % finish.encode() if finish else b',"finish_reason":null}'
        return b"".join((self._head, opened, ending, self._tail))

    def progress(self, progress: PromptProgress) -> bytes:
        """An event without a choice, that says how far the prompt has come."""
        told = msgspec.json.encode(prompt_progress(progress))
        return b"".join((self._head, b'],"prompt_progress":', told, b"}\n\n"))

    def last(self, usages: Iterable[Usage], *, with_usage: bool, with_timings: bool, reasoning: int = 0) -> bytes:
        """The event that ends a stream: no choice, but what it all cost."""
        usages = list(usages)
        parts = b""
        if with_usage:
            parts += b',"usage":' + msgspec.json.encode(add_usage(usages, reasoning=reasoning))
        if with_timings:
            parts += b',"timings":' + msgspec.json.encode(timings(*usages))
        return b"".join((self._head, b"]", parts, b"}\n\n"))
