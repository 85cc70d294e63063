"""POST /tokenize, /detokenize and /apply-template: from text to tokens, back, and from messages to text."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.llama_server.completion_request import Token
from server.api.openai.chat_request import ChatRequest
from server.api.streaming import while_connected
from server.api.whole_text import WholeTextRequest

router = APIRouter(tags=["llama-server"])


class TokenizeRequest(WholeTextRequest):
    """A text to be tokenized."""

    content: str
    model: str | None = None
    add_special: bool = False
    """Add what the tokenizer puts around a text, such as BOS."""
    parse_special: bool = True
    """Read special tokens that are spelled out as such."""
    with_pieces: bool = False
    """Tell what each token stands for: a text, or a list of bytes where it is no whole character."""


class DetokenizeRequest(WholeTextRequest):
    """Tokens whose text is wanted."""

    tokens: list[Token] = Field(max_length=1_000_000)
    model: str | None = None


@router.post("/tokenize", summary="Tell the tokens of a text")
async def tokenize(body: TokenizeRequest, request: Request, context: ContextOf) -> Response:
    """The token ids of a text, with their pieces if wanted."""
    return _json(await while_connected(request, _tokenized(body, context)))


async def _tokenized(body: TokenizeRequest, context: Context) -> dict[str, Any]:
    model = await context.model(body.model, "vocabulary")
    found = await model.engine.tokenize(
        body.content, add_special=body.add_special, parse_special=body.parse_special, pieces=body.with_pieces
    )
    if not body.with_pieces:
        return {"tokens": found.tokens}
    pairs = zip(found.tokens, found.pieces, strict=True)
    return {"tokens": [{"id": token, "piece": _readable(piece)} for token, piece in pairs]}


@router.post("/detokenize", summary="Tell the text of tokens")
async def detokenize(body: DetokenizeRequest, request: Request, context: ContextOf) -> Response:
    """The text of tokens, special ones included."""
    return _json(await while_connected(request, _detokenized(body, context)))


async def _detokenized(body: DetokenizeRequest, context: Context) -> dict[str, Any]:
    model = await context.model(body.model, "vocabulary")
    return {"content": await model.engine.detokenize(body.tokens)}


@router.post("/apply-template", summary="Tell the prompt that messages become")
async def apply_template(body: ChatRequest, request: Request, context: ContextOf) -> Response:
    """What a chat request, in OpenAI's form, would give the model to read."""
    return _json(await while_connected(request, _templated(body, context)))


async def _templated(body: ChatRequest, context: Context) -> dict[str, Any]:
    model = await context.model(body.model)
    prepared = await context.prepare(model, body.task(model, context.partition))
    return {"prompt": prepared.generate.prompt}


def _readable(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def _json(content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
