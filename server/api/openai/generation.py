"""Gathers what the engine yields into whole answers."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.engine.messages import Done, TokenLogprob, Usage

if TYPE_CHECKING:
    from server.engine.client import Engine
    from server.engine.messages import FinishReason
    from server.engine.request import Generate


@dataclass
class Choice:
    """One of a request's answers, as far as it has come."""

    pieces: list[str] = field(default_factory=list[str])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    """The engine gives them with the first choice only."""
    finish: FinishReason = "stop"

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)


async def gather_choices(engine: Engine, request: Generate) -> tuple[list[Choice], Usage]:
    """Run a request to its end. Raises RequestError as `Engine.generate` does."""
    choices = [Choice() for _ in range(request.n)]
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    async with aclosing(engine.generate(request)) as items:
        async for item in items:
            if isinstance(item, Done):
                usage = item.usage
                continue
            choice = choices[item.index]
            choice.pieces.append(item.text)
            choice.logprobs += item.logprobs
            choice.prompt_logprobs += item.prompt_logprobs
            if item.finish is not None:
                choice.finish = item.finish
    return choices, usage
