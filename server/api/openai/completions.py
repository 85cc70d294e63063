"""POST /v1/completions: text in, its continuation out."""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import structs
from starlette.responses import Response

from server.api.choices import require_room
from server.api.context import Context, ContextOf
from server.api.infill import infill_prompt
from server.api.openai.completion_request import CompletionRequest, one_or_several
from server.api.openai.generation import Choice, gather_choices
from server.api.openai.output import (
    ChunkWriter,
    Finish,
    TextLogprobs,
    TextLogprobWriter,
    UsageObject,
    add_usage,
    fingerprint,
    finish_reason,
    new_id,
    now,
    timings,
)
from server.api.streaming import DONE_EVENT, error_event, gather, merge, stream_events, while_connected
from server.engine.messages import Delta, Done, TokenLogprob, Usage
from server.engine.request import Generate
from server.errors import RequestError
from server.models.loading import LoadedModel

router = APIRouter(tags=["OpenAI"])
encode = msgspec.json.encode


class TextChoice(msgspec.Struct):
    """One continuation."""

    text: str
    index: int
    finish_reason: Finish
    logprobs: TextLogprobs | None


class Completion(msgspec.Struct, omit_defaults=True):
    """The whole answer of a request that does not stream."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: UsageObject
    timings: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Job:
    """One prompt of a request, and what comes before its continuation where that is wanted back (`echo`)."""

    request: Generate
    echo: str = ""
    first: tuple[TokenLogprob, ...] = ()
    """The prompt's first token, for which the engine has no log-probability."""

    def logprob_writer(self) -> TextLogprobWriter:
        """Counts offsets from the prompt's beginning."""
        prompt = self.request.prompt
        return TextLogprobWriter(0 if self.echo or isinstance(prompt, list) else len(prompt))


@router.post("/v1/completions", summary="Continue a text")
async def completions(body: CompletionRequest, request: Request, context: ContextOf) -> Response:
    """Continue one or several prompts, whole or as a stream of server-sent events."""
    if body.stream:
        return await stream_events(request, _stream(body, context))
    return Response(await while_connected(request, _answer(body, context)), media_type="application/json")


async def _jobs(body: CompletionRequest, model: LoadedModel, context: Context) -> list[_Job]:
    jobs: list[_Job] = []
    for prompt in one_or_several(body.prompt):
        asked = await infill_prompt(model, prompt, body.suffix) if body.suffix else prompt
        request = context.timed(body.generate(asked, model, context.partition))
        context.log_prompt(model.name, request)
        if body.echo:
            echo = prompt if isinstance(prompt, str) else await model.engine.detokenize(prompt)
            jobs.append(_Job(request, echo, await _first_token(prompt, model) if request.prompt_logprobs else ()))
        else:
            jobs.append(_Job(request))
    require_room(model, [job.request for job in jobs])
    return jobs


async def _first_token(prompt: str | list[int], model: LoadedModel) -> tuple[TokenLogprob, ...]:
    if isinstance(prompt, str) and model.info.add_bos:
        return ()  # the first one is the model's own, and no part of the text
    text = prompt if isinstance(prompt, str) else await model.engine.detokenize(prompt[:1])
    found = await model.engine.tokenize(text, pieces=True)
    return tuple(TokenLogprob(*pair, math.nan) for pair in zip(found.tokens[:1], found.pieces, strict=False))


async def _answer(body: CompletionRequest, context: Context) -> bytes:
    model = await context.model(body.model)
    jobs = await _jobs(body, model, context)
    answers = await gather([gather_choices(model.engine, job.request) for job in jobs])
    choices = [
        TextChoice(
            text=job.echo + choice.text,
            index=number * job.request.n + index,
            finish_reason=finish_reason(choice.finish),
            logprobs=_logprobs(job, choice, answer[0]) if body.logprobs is not None else None,
        )
        for number, (job, (answer, _)) in enumerate(zip(jobs, answers, strict=True))
        for index, choice in enumerate(answer)
    ]
    usages = [usage for _, usage in answers]
    completion = Completion(
        id=new_id("cmpl"),
        object="text_completion",
        created=now(),
        model=model.name,
        system_fingerprint=fingerprint(model),
        choices=choices,
        usage=add_usage(usages),
        timings=timings(*usages) if body.timings else None,
    )
    return encode(completion)


def _logprobs(job: _Job, choice: Choice, first: Choice) -> TextLogprobs:
    return job.logprob_writer().write([*job.first, *first.prompt_logprobs, *choice.logprobs])


class _Beginnings:
    """Puts before each choice of a stream what comes before its continuation, and numbers the choices of all prompts.

    Of the prompt's log-probabilities the engine tells with the first choice only: the others wait until it has.
    """

    def __init__(self, jobs: list[_Job]) -> None:
        self._jobs = jobs
        self._told: list[list[TokenLogprob]] = [[*job.first] for job in jobs]
        self._waiting: list[list[Delta] | None] = [[] if job.request.prompt_logprobs else None for job in jobs]
        self._begun: set[int] = set()

    def put_before(self, number: int, delta: Delta) -> list[Delta]:
        """What can be told now that a choice of a prompt has come this far."""
        waiting = self._waiting[number]
        if waiting is None:
            return [self._whole(number, delta)]
        if delta.index > 0:
            waiting.append(delta)
            return []
        self._told[number] += delta.prompt_logprobs
        if not (delta.tokens or delta.finish):
            return []
        self._waiting[number] = None
        return [self._whole(number, one) for one in (delta, *waiting)]

    def _whole(self, number: int, delta: Delta) -> Delta:
        job = self._jobs[number]
        index = number * job.request.n + delta.index
        if index in self._begun:
            return structs.replace(delta, index=index) if number else delta
        self._begun.add(index)
        return structs.replace(delta, index=index, text=job.echo + delta.text, prompt_logprobs=self._told[number])


async def _stream(body: CompletionRequest, context: Context) -> AsyncGenerator[bytes]:
    model = await context.model(body.model)
    jobs = await _jobs(body, model, context)
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    chunks = ChunkWriter("cmpl", "text_completion", model, with_usage=with_usage)
    n = body.n or 1
    beginnings = _Beginnings(jobs)
    writers = [job.logprob_writer() for job in jobs for _ in range(n)] if body.logprobs is not None else []
    usages: list[Usage] = []
    begun = False
    async with aclosing(merge([model.engine.generate(job.request) for job in jobs])) as items:
        try:
            async for number, item in items:
                if isinstance(item, Done):
                    usages.append(item.usage)
                    continue
                if item.progress:
                    begun = True
                    yield chunks.progress(item.progress)
                    continue
                for delta in beginnings.put_before(number, item):
                    if event := _event_of(delta, chunks, writers[delta.index] if writers else None):
                        begun = True
                        yield event
        except RequestError as error:
            if not begun:
                raise
            yield error_event(error)
            return
    if with_usage or body.timings:
        yield chunks.last(usages, with_usage=with_usage, with_timings=bool(body.timings))
    yield DONE_EVENT


def _event_of(delta: Delta, chunks: ChunkWriter, writer: TextLogprobWriter | None) -> bytes:
    """The event that tells of a delta, or nothing while it holds nothing to tell."""
    if not (delta.text or delta.logprobs or delta.prompt_logprobs or delta.finish):
        return b""
    logprobs = encode(writer.write(delta.prompt_logprobs + delta.logprobs)) if writer else b"null"
    opened = b'{"index":%d,"text":%b,"logprobs":%b' % (delta.index, encode(delta.text), logprobs)
    return chunks.choice(opened, finish_reason(delta.finish) if delta.finish else None)
