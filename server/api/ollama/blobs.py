"""HEAD and POST /api/blobs/DIGEST: files that models are to be made of."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.limits import UPLOADS
from server.api.streaming import ClientGoneError
from server.errors import RequestError
from server.models.uploads import Uploads, parse_digest

_FILE = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}

router = APIRouter(prefix=UPLOADS.removesuffix("/"), tags=["Ollama"])


def uploads_of(context: Context) -> Uploads:
    """The uploads beside the server's store."""
    return Uploads(context.manager.store, context.settings.max_upload)


@router.head("/{digest}", include_in_schema=False)
async def has_blob(digest: str, context: ContextOf) -> Response:
    """200 where a file with that digest was uploaded, or is in the store; else 404."""
    found = await asyncio.to_thread(uploads_of(context).find, parse_digest(digest))
    return Response(status_code=200 if found else 404)


@router.post("/{digest}", summary="Upload a file", openapi_extra={"requestBody": _FILE})
async def put_blob(digest: str, request: Request, context: ContextOf) -> Response:
    """Keep the body as a file that `/api/create` can make a model of. It must have the digest that the path says."""
    digest, uploads = parse_digest(digest), uploads_of(context)
    if await asyncio.to_thread(uploads.find, digest):
        return Response(status_code=200)
    await uploads.receive(digest, _pieces(request, context.settings.request_timeout))
    return Response(status_code=201)


async def _pieces(request: Request, patience: float) -> AsyncGenerator[bytes]:
    """The body as it comes. Raises RequestError (408) where nothing comes for `patience` seconds."""
    stream = aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout(patience):
                piece = await anext(stream)
            yield piece
    except StopAsyncIteration:
        return
    except TimeoutError as error:
        raise RequestError(f"nothing came for {patience:g} seconds", status=408, code="request_timeout") from error
    except ClientDisconnect as error:
        raise ClientGoneError from error
