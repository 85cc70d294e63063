"""POST /tokenize, /detokenize and /apply-template: from text to tokens, back, and from messages to text."""

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from server.api.context import ContextOf
from server.api.llama_server.completion_request import Token
from server.api.openai.chat_request import ChatRequest
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
async def tokenize(body: TokenizeRequest, context: ContextOf) -> Response:
    """The token ids of a text, with their pieces if wanted."""
    model = await context.model(body.model, "vocabulary")
    found = await model.engine.tokenize(
        body.content, add_special=body.add_special, parse_special=body.parse_special, pieces=body.with_pieces
    )
    if not body.with_pieces:
        return _json({"tokens": found.tokens})
    pairs = zip(found.tokens, found.pieces, strict=True)
    return _json({"tokens": [{"id": token, "piece": _readable(piece)} for token, piece in pairs]})


@router.post("/detokenize", summary="Tell the text of tokens")
async def detokenize(body: DetokenizeRequest, context: ContextOf) -> Response:
    """The text of tokens, special ones included."""
    model = await context.model(body.model, "vocabulary")
    return _json({"content": await model.engine.detokenize(body.tokens)})


@router.post("/apply-template", summary="Tell the prompt that messages become")
async def apply_template(body: ChatRequest, context: ContextOf) -> Response:
    """What a chat request, in OpenAI's form, would give the model to read."""
    model = await context.model(body.model)
    prepared = await context.prepare(model, body.task(model, context.partition))
    return _json({"prompt": prepared.generate.prompt})


def _readable(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def _json(content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
