"""How errors leave the server: one sentence, in the form of the protocol whose path was asked, whatever went wrong."""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING, Any, cast

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from server.api.anthropic.errors import anthropic_error
from server.api.ollama.errors import ollama_error
from server.errors import BrimError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def openai_error(error: RequestError) -> bytes:
    """The JSON text of an error in OpenAI's form, with its figures beside OpenAI's fields."""
    kind = "server_error" if error.status >= 500 else _TYPES.get(error.status, "invalid_request_error")
    fields = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": fields | error.figures})


FORMS: dict[str, Callable[[RequestError], bytes]] = {"/api/": ollama_error, "/v1/messages": anthropic_error}
"""How errors are written under paths that begin so. Anywhere else they have OpenAI's form."""


def error_body(error: RequestError, path: str) -> bytes:
    """The JSON text of an error, in the form of the protocol that has the path."""
    write = next((form for prefix, form in FORMS.items() if path.startswith(prefix)), openai_error)
    return write(error)


def retry_after(error: RequestError) -> dict[str, str]:
    """The header that tells after how many seconds the same request may succeed, if it may."""
    return {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}


def error_response(error: RequestError, path: str, headers: Mapping[str, str] | None = None) -> Response:
    """The response for an error at a path, with Retry-After where the same request may succeed later."""
    all_headers = dict(headers or {}) | retry_after(error)
    if error.status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return Response(error_body(error, path), error.status, all_headers, media_type="application/json")


def as_request_error(error: BrimError) -> RequestError:
    """An error of the server's own making that a request ran into, such as a model that cannot be loaded."""
    return error if isinstance(error, RequestError) else RequestError(str(error), status=503, code="model_unavailable")


def install(app: FastAPI) -> None:
    """Let every error of an application leave in its protocol's form."""
    app.add_exception_handler(BrimError, _on_brim_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


class Unforeseen:
    """ASGI middleware, the innermost, that answers 500 where an endpoint failed as nobody expected.

    An exception handler would answer outside of all middleware: without a request id, and unreadable to web pages.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            # The exception's own message may hold a part of the request.
            logger.error("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__, exc_info=error)
            message = "something went wrong in the server; its log says more when it runs with --debug"
            failure = RequestError(message, status=500, code="internal_error")
            await error_response(failure, scope["path"])(scope, receive, send)


async def _on_brim_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrimError)
    return error_response(as_request_error(error), request.url.path)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(explain(error.errors(), error.body), request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, headers = request.url.path, error.headers
    if error.status_code == 404:
        message, code = f"there is nothing at {path}; the routes are listed at /docs", "not_found"
    elif error.status_code == 405:
        message, code = f"{path} does not take {request.method}", "method_not_allowed"
        headers = {"Allow": ", ".join(_methods_at(request))}
    else:
        message, code = str(error.detail), None
    return error_response(RequestError(message, status=error.status_code, code=code), path, headers)


def _methods_at(request: Request) -> list[str]:
    """The methods that a path takes: Starlette itself tells only those of its first route there."""
    routes: list[BaseRoute] = request.app.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def explain(faults: Sequence[Mapping[str, Any]], body: object) -> RequestError:
    """Put what Pydantic found into one sentence about the first field at fault.

    Args:
        faults: Pydantic's error list; the first element of each location is where the value came from (`body`).
        body: the request's body, in which a location is looked up: a location also holds names of union members.
    """
    first = faults[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it ends too early")
        return RequestError(
            f"the body is not valid JSON: {reason} at character {first['loc'][-1]}", code="invalid_json"
        )
    if first["type"] == "value_error" and len(first["loc"]) == 1:
        return RequestError(_reason(first["msg"]), code="invalid_value")  # about several fields, which it names
    params = [
        _param(fault["loc"][1:], body) if fault["loc"][0] == "body" else str(fault["loc"][-1])  # in the URL or a header
        for fault in faults
    ]
    if not params[0]:
        return RequestError("the body must be a JSON object, sent with Content-Type: application/json")
    # Where a field may be one thing or another, the fault that lies deepest belongs to what was meant.
    param = max((one for one in params if _top(one) == _top(params[0])), key=_depth)
    here = [fault for fault, one in zip(faults, params, strict=True) if one == param]
    if here[0]["type"] == "missing":
        return RequestError(f"'{param}' is missing", code="missing_required_parameter", param=param)
    if here[0]["type"] == "extra_forbidden":
        return RequestError(f"'{param}' is not a known field of this request", code="unknown_parameter", param=param)
    reasons = dict.fromkeys(_reason(fault["msg"]) for fault in here)
    return RequestError(f"'{param}': {', or '.join(reasons)}", code="invalid_value", param=param)


def _top(param: str) -> str:
    return re.split(r"[.\[]", param, maxsplit=1)[0]


def _depth(param: str) -> int:
    return param.count(".") + param.count("[")


def _reason(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"it {message}" if message.startswith("should") else message


def _param(location: Sequence[str | int], body: object) -> str:
    """Write a location as `messages[0].content`, leaving out what is no part of the body."""
    text, here = "", body
    for part in location:
        if isinstance(part, int):
            if isinstance(here, list):
                items = cast("list[object]", here)
                text, here = f"{text}[{part}]", items[part] if part < len(items) else None
        elif isinstance(here, dict):
            fields = cast("dict[str, object]", here)
            text, here = f"{text}.{part}" if text else part, fields.get(part)
    return text
