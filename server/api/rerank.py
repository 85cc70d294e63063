"""POST /v1/rerank: documents in the order in which they answer a query, as Jina, Cohere and llama-server have it."""

from typing import Annotated

import msgspec
import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.openai.embeddings import EmbeddingUsage
from server.api.openai.fields import MeaninglessFields
from server.api.streaming import while_connected
from server.api.strict import StrictModel
from server.api.vectors import MOST_INPUTS

router = APIRouter(tags=["Ranking"])


class Document(StrictModel):
    """A document as an object, for clients that send it so."""

    text: str


class RerankRequest(MeaninglessFields):
    """A query, and what may answer it."""

    model: str | None = None
    """A reranker model's name; may be left out where just one model is loaded."""
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MOST_INPUTS)]
    top_n: int | None = Field(None, ge=1)
    """Only the best so many."""
    return_documents: bool = False

    def texts(self) -> list[str]:
        """The documents as texts."""
        return [one.text if isinstance(one, Document) else one for one in self.documents]


class Returned(msgspec.Struct):
    """A document that is given back."""

    text: str


class Ranked(msgspec.Struct, omit_defaults=True):
    """A document's place in the request and its score, as the model gives it: the higher, the better."""

    index: int
    relevance_score: float
    document: Returned | None = None


class Ranking(msgspec.Struct):
    """The answer; the best comes first."""

    model: str
    results: list[Ranked]
    usage: EmbeddingUsage
    object: str = "list"


@router.post("/v1/rerank", summary="Rank documents against a query")
@router.post("/v1/reranking", include_in_schema=False)
@router.post("/rerank", include_in_schema=False)
@router.post("/reranking", include_in_schema=False)
async def rerank(body: RerankRequest, request: Request, context: ContextOf) -> Response:
    """Score each document against the query with a reranker model."""
    return Response(await while_connected(request, _answer(body, context)), media_type="application/json")


async def _answer(body: RerankRequest, context: Context) -> bytes:
    model = await context.model(body.model, "ranking")
    texts = body.texts()
    answer = await model.engine.embed(texts, query=body.query)
    scores = [float(np.frombuffer(raw, "<f4")[0]) for raw in answer.vectors]
    best = sorted(range(len(texts)), key=lambda index: -scores[index])[: body.top_n]
    results = [Ranked(i, scores[i], Returned(texts[i]) if body.return_documents else None) for i in best]
    tokens = sum(answer.token_counts)
    return msgspec.json.encode(Ranking(model.name, results, EmbeddingUsage(tokens, tokens)))
