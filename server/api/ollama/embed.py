"""POST /api/embed and its predecessor /api/embeddings: texts in, vectors out."""

import time
from typing import Annotated

from fastapi import APIRouter, Request
from msgspec import Struct
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.ollama.options import Options
from server.api.ollama.wire import JsonRoute, KeepAlive, NamedModel, json_response, nanoseconds
from server.api.streaming import while_connected
from server.api.vectors import MOST_INPUTS, embed, pooled

router = APIRouter(prefix="/api", tags=["Ollama"], route_class=JsonRoute)


def _one_or_many(value: object) -> object:
    if isinstance(value, str):
        return [value] if value else []
    return value


Texts = Annotated[
    Annotated[list[str], Field(max_length=MOST_INPUTS)],
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
]


class EmbedRequest(NamedModel):
    """One or several texts to be embedded. Without any, the model is loaded."""

    input: Texts
    truncate: bool = True
    """Cut texts that are too long; else they are refused."""
    dimensions: int | None = Field(None, ge=1)
    options: Options = Options()
    """Without effect, except that they must be Ollama's."""
    keep_alive: KeepAlive | None = None


class EmbeddingsRequest(NamedModel):
    """A text to be embedded."""

    prompt: str = ""
    options: Options = Options()
    keep_alive: KeepAlive | None = None


class EmbedResponse(Struct):
    """A unit vector for each text. Times are in ns."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsResponse(Struct):
    """The text's vector, as the model gives it."""

    embedding: list[float]


@router.post("/embed", summary="Embed texts")
async def embed_texts(body: EmbedRequest, request: Request, context: ContextOf) -> Response:
    """Turn texts into vectors of length one."""
    return json_response(await while_connected(request, _embed(body, context)))


@router.post("/embeddings", summary="Embed a text")
async def embed_text(body: EmbeddingsRequest, request: Request, context: ContextOf) -> Response:
    """Turn a text into a vector, of any length. Ollama's clients now use /api/embed instead."""
    return json_response(await while_connected(request, _embed_one(body, context)))


async def _embed(body: EmbedRequest, context: Context) -> EmbedResponse:
    started = time.perf_counter()
    model = await context.model(body.model, "embedding", body.keep_alive)
    loaded = time.perf_counter()
    rows: list[list[float]] = []
    tokens = 0
    if body.input:
        vectors = await embed(model, body.input, dimensions=body.dimensions, truncate=body.truncate)
        rows, tokens = vectors.rows.tolist(), vectors.tokens
    return EmbedResponse(
        model=body.model,
        embeddings=rows,
        total_duration=nanoseconds(time.perf_counter() - started),
        load_duration=nanoseconds(loaded - started),
        prompt_eval_count=tokens,
    )


async def _embed_one(body: EmbeddingsRequest, context: Context) -> EmbeddingsResponse:
    model = await context.model(body.model, "embedding", body.keep_alive)
    if not body.prompt:
        return EmbeddingsResponse([])
    return EmbeddingsResponse((await pooled(model, [body.prompt], truncate=True)).rows[0].tolist())
