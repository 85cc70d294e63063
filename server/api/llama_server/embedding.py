"""POST /embedding and /embeddings: vectors in llama-server's own form."""

from typing import Annotated

import msgspec
import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.openai.completion_request import Tokens, one_or_several
from server.api.streaming import while_connected
from server.api.vectors import MOST_INPUTS, Matrix, normalized, pooled
from server.api.whole_text import WholeTextRequest

router = APIRouter(tags=["llama-server"])

Inputs = str | Tokens | Annotated[list[str | Tokens], Field(min_length=1, max_length=MOST_INPUTS)]


class NativeEmbeddingRequest(WholeTextRequest):
    """Texts, or lists of token ids, to be embedded; `input` is another name of `content`."""

    content: Inputs | None = None
    input: Inputs | None = None
    model: str | None = None
    embd_normalize: int = Field(2, ge=-1, le=32)
    """-1: not at all; 0: by the largest absolute value; 1: by the sum of absolute values; n: by the n-norm."""

    @model_validator(mode="after")
    def _one_input(self) -> "NativeEmbeddingRequest":
        if (self.content is None) == (self.input is None):
            raise ValueError("give content, or input, which is another name for it")
        return self

    def inputs(self) -> list[str | list[int]]:
        """What is to be embedded."""
        return one_or_several(self.content if self.content is not None else self.input or "")


class Embedded(msgspec.Struct):
    """One input's vectors: a single one, since brim always pools."""

    index: int
    embedding: list[list[float]]


@router.post("/embedding", summary="Embed texts")
@router.post("/embeddings", include_in_schema=False)
async def embedding(body: NativeEmbeddingRequest, request: Request, context: ContextOf) -> Response:
    """Turn one or several texts into vectors, normalized as wanted."""
    return Response(await while_connected(request, _answer(body, context)), media_type="application/json")


async def _answer(body: NativeEmbeddingRequest, context: Context) -> bytes:
    model = await context.model(body.model, "embedding")
    rows = _normalized((await pooled(model, body.inputs())).rows, body.embd_normalize)
    return msgspec.json.encode([Embedded(index, [row]) for index, row in enumerate(rows.tolist())])


def _normalized(rows: Matrix, kind: int) -> Matrix:
    return rows if kind < 0 else normalized(rows, kind or np.inf)
