"""POST /completion and /infill: text in, its continuation out, in llama-server's own form."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from server.api.choices import require_room
from server.api.context import Context, ContextOf
from server.api.infill import infill_prompt
from server.api.llama_server.completion_request import (
    CompletionRequest,
    InfillRequest,
    Prompt,
    SamplingFields,
)
from server.api.llama_server.settings import generation_settings
from server.api.openai.output import prompt_progress, timings
from server.api.streaming import error_event, gather, merge, stream_events, while_connected
from server.engine.messages import Delta, Done, FinishReason, TokenLogprob, Usage
from server.engine.request import Generate
from server.errors import RequestError
from server.models.loading import LoadedModel

router = APIRouter(tags=["llama-server"])
encode = msgspec.json.encode

NO_SLOT = -1
"""Where llama-server names the slot that a request ran in: brim has none."""
StopType = Literal["none", "eos", "limit", "word"]


@dataclass
class _Answer:
    """One continuation as far as it has come."""

    text: str = ""
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    stop_type: StopType = "none"
    stopping_word: str = ""
    finish: FinishReason | None = None

    def add(self, delta: Delta) -> None:
        self.text += delta.text
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        self.finish = delta.finish or self.finish
        if delta.finish == "stop":
            self.stop_type, self.stopping_word = ("word", delta.stop_string) if delta.stop_string else ("eos", "")
        elif delta.finish is not None:
            self.stop_type = "limit"


@dataclass(frozen=True)
class _Run:
    """The requests of one call, side by side, and how their results are written."""

    body: SamplingFields
    model: LoadedModel
    requests: Sequence[Generate]

    async def answer(self) -> bytes:
        """Everything at once: an object, or a list where several prompts or continuations were asked for."""
        results = await gather([self._gather(request) for request in self.requests])
        objects = [
            self.whole(number * request.n + index, request, answer, usage)
            for number, (request, (answers, usage)) in enumerate(zip(self.requests, results, strict=True))
            for index, answer in enumerate(answers)
        ]
        return encode(objects if len(objects) > 1 else objects[0])

    async def _gather(self, request: Generate) -> tuple[list[_Answer], Usage]:
        answers = [_Answer() for _ in range(request.n)]
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        async with aclosing(self.model.engine.generate(request)) as items:
            async for item in items:
                if isinstance(item, Done):
                    usage = item.usage
                else:
                    answers[item.index].add(item)
        return answers, usage

    async def stream(self) -> AsyncGenerator[bytes]:
        """An event for each piece; when a prompt's continuations have ended, one for each that tells what it was."""
        begun = False
        answers = [[_Answer() for _ in range(request.n)] for request in self.requests]
        async with aclosing(merge([self.model.engine.generate(request) for request in self.requests])) as items:
            try:
                async for number, item in items:
                    request = self.requests[number]
                    first = number * request.n
                    if isinstance(item, Done):
                        for index, answer in enumerate(answers[number]):
                            yield _event(self.whole(first + index, request, answer, item.usage))
                    else:
                        answers[number][item.index].add(item)
                        if item.text or item.tokens or item.progress:
                            yield _event(self._part(first + item.index, item))
                    begun = True
            except RequestError as error:
                if not begun:
                    raise
                yield error_event(error)

    def _part(self, index: int, delta: Delta) -> dict[str, Any]:
        part: dict[str, Any] = {"index": index, "content": delta.text, "tokens": delta.tokens, "stop": False}
        if delta.progress:
            part["prompt_progress"] = prompt_progress(delta.progress)
        return part | _probabilities(self.body, delta.logprobs)

    def whole(self, index: int, request: Generate, answer: _Answer, usage: Usage) -> dict[str, Any]:
        """All there is to tell of a continuation, which counts as truncated where it filled the context."""
        limit = request.max_tokens
        full = {
            "index": index,
            "content": "" if self.body.stream else answer.text,
            "tokens": answer.tokens if self.body.return_tokens and not self.body.stream else [],
            "id_slot": NO_SLOT,
            "stop": True,
            "model": self.model.name,
            "tokens_predicted": len(answer.tokens),
            "tokens_evaluated": usage.prompt_tokens,
            "generation_settings": generation_settings(request, self.model.info.context),
            "prompt": request.prompt,
            "has_new_line": "\n" in answer.text,
            "truncated": answer.finish == "length" and (limit is None or len(answer.tokens) < limit),
            "stop_type": answer.stop_type,
            "stopping_word": answer.stopping_word,
            "tokens_cached": usage.cached_tokens,
            "timings": timings(usage),
        }
        if not self.body.stream:
            full |= _probabilities(self.body, answer.logprobs)
        return full if not self.body.response_fields else _selected(full, self.body.response_fields)


@router.post("/completion", summary="Continue a text")
@router.post("/completions", include_in_schema=False)
async def completion(body: CompletionRequest, request: Request, context: ContextOf) -> Response:
    """Continue one or several prompts, whole or as a stream of server-sent events."""
    return await _respond(request, await while_connected(request, _continuing(body, context)))


@router.post("/infill", summary="Fill the gap in a text")
async def infill(body: InfillRequest, request: Request, context: ContextOf) -> Response:
    """Generate what belongs between two texts, with a model that has fill-in-the-middle tokens."""
    return await _respond(request, await while_connected(request, _filling(body, context)))


async def _continuing(body: CompletionRequest, context: Context) -> _Run:
    model = await context.model(body.model)
    return await _prepared(body, context, model, [await _tokens(prompt, model) for prompt in body.prompts()])


async def _filling(body: InfillRequest, context: Context) -> _Run:
    model = await context.model(body.model)
    extra = [(one.filename, one.text) for one in body.input_extra or ()]
    prompt = await infill_prompt(
        model, body.input_prefix, body.input_suffix, extra=extra, prompt=body.prompt, param="input_suffix"
    )
    return await _prepared(body, context, model, [prompt])


async def _prepared(
    body: SamplingFields, context: Context, model: LoadedModel, prompts: Sequence[str | list[int]]
) -> _Run:
    requests = [context.timed(await body.generate(prompt, model, context)) for prompt in prompts]
    require_room(model, requests, "n_cmpl")
    for one in requests:
        context.log_prompt(model.name, one)
    return _Run(body, model, requests)


async def _respond(request: Request, run: _Run) -> Response:
    if run.body.stream:
        return await stream_events(request, run.stream())
    return Response(await while_connected(request, run.answer()), media_type="application/json")


async def _tokens(prompt: Prompt, model: LoadedModel) -> str | list[int]:
    """A prompt for the engine: a list that mixes ids and texts becomes ids, and only a text at its head gets a BOS."""
    if isinstance(prompt, str):
        return prompt
    found: list[int] = []
    for place, part in enumerate(prompt):
        found += [part] if isinstance(part, int) else (await model.engine.tokenize(part, add_special=place == 0)).tokens
    return found


def _probabilities(body: SamplingFields, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    if not body.n_probs or not logprobs:
        return {}
    return {
        "completion_probabilities": [
            _probability(one.token, one.piece, one.logprob)
            | {"top_logprobs": [_probability(token, piece, logprob) for token, piece, logprob in one.top]}
            for one in logprobs
        ]
    }


def _probability(token: int, piece: bytes, logprob: float) -> dict[str, Any]:
    return {"id": token, "token": piece.decode("utf-8", "replace"), "bytes": list(piece), "logprob": logprob}


def _selected(full: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The fields asked for, as far as they are there, under the names they were asked for by."""
    found: dict[str, Any] = {}
    for name in names:
        head, _, last = name.rpartition("/")
        inner: dict[str, Any] = full.get(head, {}) if head else full
        if last in inner:
            found[name] = inner[last]
    return found


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + encode(content) + b"\n\n"
