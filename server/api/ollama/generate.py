"""POST /api/generate: a prompt's continuation, as a chat of one turn, raw, or between two texts."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Self

from fastapi import APIRouter, Request
from msgspec import structs
from pydantic import AfterValidator, Field, model_validator
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.infill import infill_prompt
from server.api.ollama.conversation import show
from server.api.ollama.occupancy import load_or_unload
from server.api.ollama.options import GenerationRequest, Images
from server.api.ollama.output import Answer, Answering, Said
from server.api.ollama.responding import respond
from server.api.ollama.thinking import thinking
from server.api.ollama.wire import JsonRoute, json_response, timestamp
from server.api.strict import refused
from server.chat.answer import ChatDelta, Prepared, chat_deltas, chat_finish
from server.chat.events import Content
from server.chat.media import Shown
from server.chat.renderer import Renderer, in_turn
from server.chat.task import ChatTask
from server.engine.client import Engine
from server.engine.messages import Done, TokenLogprob
from server.engine.request import Generate
from server.models.loading import LoadedModel
from server.models.modelfile import is_go_template

router = APIRouter(prefix="/api", tags=["Ollama"], route_class=JsonRoute)


def _no_go(template: str | None) -> str | None:
    if template and is_go_template(template):
        raise ValueError("it is a Go template, and brim takes Jinja; leave it out to use the model's own")
    return template or None


class GenerateRequest(GenerationRequest):
    """A prompt to be continued. Without one, the model is loaded, or unloaded with a keep_alive of 0."""

    prompt: str = ""
    suffix: str = ""
    """What comes after the answer, for models that can fill gaps."""
    system: str = ""
    template: Annotated[str | None, AfterValidator(_no_go)] = None
    """A Jinja chat template in place of the model's own."""
    raw: bool = False
    """Take the prompt as it is, without the chat template."""
    images: Images = None
    context: list[Annotated[int, Field(ge=0)]] | None = None
    """The tokens of what was said so far, as the last answer told them."""
    width: Annotated[Any, refused("brim makes no images")] = None
    height: Annotated[Any, refused("brim makes no images")] = None
    steps: Annotated[Any, refused("brim makes no images")] = None

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.raw and (self.system or self.template or self.suffix or self.context):
            raise ValueError(
                "a raw prompt cannot be had with system, template, suffix or context, which shape the prompt"
            )
        if self.images and (self.raw or self.suffix or self.context):
            raise ValueError("images cannot be had with raw, suffix or context: leave one of them out")
        if self.suffix and (self.system or self.template or self.context):
            raise ValueError("a gap is filled without a chat template: leave system, template and context out")
        return self

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be continued."""
        return not (self.prompt or self.suffix)

    def generate(self, prompt: str | list[int], model: LoadedModel, partition: str) -> Generate:
        """The engine's form of the request, for a prompt that is not a chat's."""
        request = self.options.generate(prompt, model, partition, self.alternatives)
        return structs.replace(request, grammar=self.grammar)

    def task(self, model: LoadedModel, partition: str) -> ChatTask:
        """The prompt as a chat's only turn. Raises RequestError where it asks for what the model cannot do."""
        thinks, variables = thinking(model, self.think)
        system = [{"role": "system", "content": self.system}] if self.system else []
        shown = Shown()
        return ChatTask(
            messages=[*system, {"role": "user", "content": show(self.images, shown) + self.prompt}],
            shown=shown,
            answer=self.grammar,
            thinking=thinks,
            variables=variables,
            generate=self.options.generate("", model, partition, self.alternatives),
        )


class GenerateResponse(Answer):
    """The continuation, or a part of it."""

    response: str
    thinking: str | None = None


@router.post("/generate", summary="Continue a prompt")
async def generate(body: GenerateRequest, request: Request, context: ContextOf) -> Response:
    """Continue a prompt, as a stream of lines or whole."""
    if body.is_empty:
        reason = await load_or_unload(body.model, body.keep_alive, context)
        answer = _response(Said(), model=body.model, created_at=timestamp(), done=True, done_reason=reason)
        return json_response(answer)
    return await respond(request, partial(_begin, body, context), stream=body.stream)


async def _begin(body: GenerateRequest, context: Context) -> Answering:
    started = time.perf_counter()
    model = await context.model(body.model, keep_alive=body.keep_alive)
    loaded = time.perf_counter()
    if body.raw or body.suffix:
        deltas = await _continued(body, model, context)
        return Answering(body.model, _response, deltas, started, loaded)
    prepared = await _prepared(body, model, context)
    context.log_prompt(model.name, prepared.generate)
    prompt = None if prepared.generate.media else await _tokens(prepared.generate, body.context or [], model)
    if body.context:
        assert prompt is not None  # images are not had with a context
        prepared = replace(prepared, generate=structs.replace(prepared.generate, prompt=prompt, boundaries=[]))
    return Answering(body.model, _response, chat_deltas(model.engine, prepared), started, loaded, prompt)


async def _prepared(body: GenerateRequest, model: LoadedModel, context: Context) -> Prepared:
    """The prompt in the model's template, or in the request's own."""
    if body.template is None:
        return await context.prepare(model, body.task(model, context.partition))
    names = {"bos_token": model.info.bos_token, "eos_token": model.info.eos_token}
    async with in_turn(context.own_templates), aclosing(Renderer(body.template, names)) as template:
        own = replace(model, template=template)
        return await context.prepare(own, body.task(own, context.partition))


async def _tokens(generate: Generate, before: list[int], model: LoadedModel) -> list[int]:
    """The tokens of a prompt behind those of what was said before it."""
    assert isinstance(generate.prompt, str)
    text = generate.prompt.removeprefix(model.info.bos_token) if before else generate.prompt
    return before + (await model.engine.tokenize(text, add_special=not before)).tokens


async def _continued(body: GenerateRequest, model: LoadedModel, context: Context) -> AsyncGenerator[ChatDelta | Done]:
    prompt = await infill_prompt(model, body.prompt, body.suffix) if body.suffix else body.prompt
    request = context.timed(body.generate(prompt, model, context.partition))
    context.log_prompt(model.name, request)
    return _text_deltas(model.engine, request)


async def _text_deltas(engine: Engine, request: Generate) -> AsyncGenerator[ChatDelta | Done]:
    """What the engine says, as text and nothing else. Log-probabilities come with the text that they belong to."""
    held: list[TokenLogprob] = []
    async with aclosing(engine.generate(request)) as items:
        async for item in items:
            if isinstance(item, Done):
                yield item
            else:
                finish = None if item.finish is None else chat_finish(item.finish, calls=False)
                events = [Content(item.text)] if item.text else []
                held += item.logprobs
                told, held = (held, []) if events or finish else ([], held)
                yield ChatDelta(item.index, [*events], told, finish=finish, tokens=item.tokens)


def _response(said: Said, **fields: Any) -> GenerateResponse:
    return GenerateResponse(response=said.content, thinking=said.thinking or None, **fields)
