"""POST /api/create: a model from one in the store or an uploaded file, with words and parameters of its own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from fastapi import APIRouter, Request
from msgspec import structs
from pydantic import BeforeValidator, Field, model_validator
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.ollama.blobs import uploads_of
from server.api.ollama.lines import finish, progress, stream_lines
from server.api.ollama.wire import JsonRoute, NamedModel, json_response
from server.api.streaming import while_connected
from server.api.strict import StrictModel
from server.chat.renderer import in_turn
from server.errors import BrimError, RequestError
from server.models.create import Progress, check_template, create
from server.models.manifest import ModelName
from server.models.modelfile import Message, Modelfile, parse, serialise
from server.models.parameters import Parameters, canonical_name, parse_parameter
from server.models.uploads import parse_digest, the_only_gguf

router = APIRouter(prefix="/api", tags=["Ollama"], route_class=JsonRoute)


def _no_adapters(value: Any) -> None:
    if value not in (None, {}):
        raise ValueError("brim takes no uploaded adapters; create the model on the server, with brim create")


class GivenMessage(StrictModel):
    """One message of the conversation that every chat begins with."""

    role: Literal["system", "user", "assistant"]
    content: str


class CreateRequest(NamedModel):
    """What to create, either by fields or by a Modelfile's text."""

    from_: Annotated[str | None, Field(alias="from")] = None
    """A model in the store."""
    modelfile: str | None = None
    """In place of all the other fields."""
    quantize: str | None = None
    quantization: str | None = None
    """An older name of `quantize`."""
    template: str | None = None
    system: str | None = None
    license: str | list[str] | None = None
    parameters: dict[str, Any] | None = None
    messages: list[GivenMessage] | None = None
    files: dict[str, str] | None = None
    """Digests of uploaded files by their names: one GGUF file, in place of `from`."""
    adapters: Annotated[Any, BeforeValidator(_no_adapters)] = None
    stream: bool = True

    @model_validator(mode="after")
    def _has_origin(self) -> Self:
        if (self.from_ is not None) + (self.modelfile is not None) + bool(self.files) != 1:
            raise ValueError(
                "give either 'from', a model's name, or 'files', an uploaded file, or 'modelfile', a Modelfile's text"
            )
        return self

    def as_modelfile(self, upload: Path | None) -> Modelfile:
        """The model's description, `upload` being the uploaded file. Raises BrimError where it makes no sense."""
        if self.modelfile is not None:
            return parse(self.modelfile)
        licenses = [self.license] if isinstance(self.license, str) else self.license or []
        quantize = self.quantize or self.quantization
        described = Modelfile(
            source=str(upload) if upload else self.from_ or "",
            quantize=quantize.upper() if quantize else None,
            parameters=_parameters(self.parameters or {}),
            system=self.system,
            template=self.template,
            messages=tuple(Message(message.role, message.content) for message in self.messages or ()),
            licenses=tuple(licenses),
        )
        return parse(serialise(described))  # the checks of values are the reader's


@router.post("/create", summary="Create a model")
async def create_model(body: CreateRequest, request: Request, context: ContextOf) -> Response:
    """Create a model in the store from another one there, telling how it comes along."""
    lines = _create(body, context)
    if body.stream:
        return await stream_lines(request, lines)
    await while_connected(request, finish(lines))
    return json_response({"status": "success"})


async def _create(body: CreateRequest, context: Context) -> AsyncGenerator[bytes]:
    store, loop = context.manager.store, asyncio.get_running_loop()
    try:
        upload = await asyncio.to_thread(_uploaded, body, context)
        modelfile = body.as_modelfile(upload)
        for keyword, name in (("FROM", None if upload else modelfile.source), ("DRAFT", modelfile.draft)):
            if name is not None:
                _require_in_store(context, keyword, name)
        for keyword, files in (("ADAPTER", modelfile.adapters), ("PROJECTOR", modelfile.projector)):
            if files:
                raise BrimError(
                    f"{keyword} names a file, and no request may read the server's files; use brim create there"
                )

        async with in_turn(context.own_templates):
            await asyncio.to_thread(check_template, modelfile, "Modelfile")

        def work(report: Progress) -> None:
            create(store, body.model, modelfile, Path(), progress=report, template_checked=True)
            for digest in (body.files or {}).values():
                uploads_of(context).remove(parse_digest(digest))
            loop.call_soon_threadsafe(context.manager.retire, body.model)

        async with aclosing(progress(work)) as lines:
            async for line in lines:
                yield line
    except RequestError:
        raise
    except BrimError as error:
        raise RequestError(str(error)) from error


def _uploaded(body: CreateRequest, context: Context) -> Path | None:
    """The uploaded file that a request names, if it does. Raises RequestError: 404 where it is not there."""
    if not body.files:
        return None
    name, digest = the_only_gguf(body.files)
    path = uploads_of(context).find(parse_digest(digest))
    if path is None:
        message = f"files: {name} was not uploaded: POST it to /api/blobs/{digest} first"
        raise RequestError(message, status=404, code="blob_not_found", param="files")
    return path


def _require_in_store(context: Context, keyword: str, name: str) -> None:
    """Paths are never taken from requests."""
    try:
        found = str(ModelName.parse(name)) and name in context.manager.store
    except BrimError:
        found = False
    if not found:
        raise RequestError(
            f"{keyword} {name}: there is no such model in the store, and no request may read the server's files",
            status=404,
            code="model_not_found",
            param="from",
        )


def _parameters(given: dict[str, Any]) -> Parameters:
    """A request's parameters. Raises BrimError, which names the one at fault."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        try:
            known = canonical_name(name)
            values = cast("list[Any]", value) if isinstance(value, list) else [value]
            parsed = [parse_parameter(known, str(one)) for one in values]
        except ValueError as error:
            raise BrimError(f"parameters.{name}: {error}") from error
        found[known] = tuple(parsed) if known == "stop" else parsed[-1]
    return structs.replace(Parameters(), **found)
