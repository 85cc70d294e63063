"""POST /v1/embeddings: texts to vectors."""

import base64
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field, field_validator
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.openai.completion_request import Tokens, of_right_kind, one_or_several
from server.api.openai.fields import MeaninglessFields
from server.api.streaming import while_connected
from server.api.vectors import MOST_INPUTS, Matrix, embed

router = APIRouter(tags=["OpenAI"])


class EmbeddingRequest(MeaninglessFields):
    """One or several texts, or lists of token ids, to be embedded."""

    model: str | None = None
    """A model's name; may be left out where just one is loaded. Any model can embed that does not rank."""
    input: str | Tokens | Annotated[list[str | Tokens], Field(min_length=1, max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    """`base64` is that of little-endian float32."""
    dimensions: int | None = Field(None, ge=1)
    """Keep only so many numbers of each vector, for models trained to allow that."""

    @field_validator("input", mode="before")
    @classmethod
    def _right_kind(cls, value: Any) -> Any:
        return of_right_kind(value, MOST_INPUTS)


class EmbeddingObject(msgspec.Struct):
    """One input's vector, of length one."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct):
    """How many tokens the inputs had."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    """The answer."""

    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
    object: str = "list"


@router.post("/v1/embeddings", summary="Embed texts")
async def embeddings(body: EmbeddingRequest, request: Request, context: ContextOf) -> Response:
    """Turn one or several texts into vectors of length one."""
    return Response(await while_connected(request, _answer(body, context)), media_type="application/json")


async def _answer(body: EmbeddingRequest, context: Context) -> bytes:
    model = await context.model(body.model, "embedding")
    found = await embed(model, one_or_several(body.input), dimensions=body.dimensions)
    data = [EmbeddingObject(index, one) for index, one in enumerate(_encoded(found.rows, body.encoding_format))]
    return msgspec.json.encode(EmbeddingList(data, model.name, EmbeddingUsage(found.tokens, found.tokens)))


def _encoded(rows: Matrix, form: Literal["float", "base64"]) -> list[list[float]] | list[str]:
    if form == "float":
        return rows.tolist()
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
