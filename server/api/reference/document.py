"""Puts the OpenAPI document together: FastAPI's, with answers, examples and errors from the entries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import msgspec
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from server.api.errors import error_body
from server.api.reference import anthropic, llama_server, ollama, openai, operation, responses
from server.api.reference.entry import JSON, Body, Entries, Entry, shape
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    Json = dict[str, Any]

ENTRIES: Entries = (
    openai.ENTRIES | responses.ENTRIES | anthropic.ENTRIES | ollama.ENTRIES | llama_server.ENTRIES | operation.ENTRIES
)

DESCRIPTION = """
Every chat client pointed here just works. Requests name a model of this server, or none where just one is loaded.
Fields that are not listed are refused by name, each error is one sentence in the form of its protocol, and every answer
carries an `x-request-id`. Where the server was started with API keys, send one as `Authorization: Bearer KEY` or
`x-api-key: KEY`.
"""

REFUSALS = {
    400: "The request is not right; the message names what is wrong.",
    401: "An API key is needed, or is not known.",
    403: "A page of another site may not call, or the Host header names another server.",
    404: "There is no such thing here.",
    408: "The body did not arrive in time.",
    409: "What is asked for would disturb a model that is in use or was named at the server's start.",
    413: "The body is too large.",
    429: "This caller asks too often, or more requests wait than there are places; Retry-After says when to come back.",
    500: "Something went wrong in the server.",
    502: "The Hugging Face hub refuses what was asked for, or cannot be reached.",
    503: "The model or the server cannot answer now; Retry-After says when to come back.",
    507: "The disk cannot take it.",
}
EVERYWHERE = (400, 401, 403, 500, 503)
WITH_A_BODY = (408, 413, 429)
REFERENCE = "#/components/schemas/"


def install(app: FastAPI) -> None:
    """Let the application tell of itself in full at /openapi.json."""

    def document() -> Json:
        app.openapi_schema = app.openapi_schema or build(app)
        return app.openapi_schema

    app.openapi = document


def build(app: FastAPI) -> Json:
    """The OpenAPI 3.1 document of an application."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=DESCRIPTION,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    schemas = _Schemas(found.setdefault("components", {}).setdefault("schemas", {}))
    for path, method, endpoint in operations(found):
        entry = ENTRIES.get((method, path), Entry(answers={}))
        _describe_request(endpoint, entry)
        _describe_answers(endpoint, entry, schemas)
        _describe_errors(endpoint, path, entry, schemas)
    _describe_second_paths(found, app)
    schemas.drop("HTTPValidationError", "ValidationError")
    found["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    found["security"] = [{}, {"bearer": []}, {"key": []}]  # {}: a server started without keys asks for none
    return found


def _describe_second_paths(document: Json, app: FastAPI) -> None:
    """Tell which other paths lead to an endpoint: those that peers have given it."""
    told_of: list[tuple[Any, Json]] = []
    others: dict[Any, list[str]] = {}
    for route in iter_route_contexts(app.routes):
        for method in sorted(route.methods or ()):
            if told := document["paths"].get(route.path_format, {}).get(method.lower()):
                told_of.append((route.endpoint, told))
            else:
                others.setdefault(route.endpoint, []).append(f"`{method} {route.path}`")
    for endpoint, told in told_of:
        if endpoint in others:
            told["description"] += f"\n\nAlso at {', '.join(others[endpoint])}."


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """The path, method and description of each endpoint in a document."""
    for path, methods in document["paths"].items():
        for method, endpoint in methods.items():
            yield path, method, endpoint


class _Schemas:
    """The document's named schemas, to which those of msgspec's types are added as they come up."""

    def __init__(self, named: Json) -> None:
        self._named = named
        kinds = [body.kind for entry in ENTRIES.values() for body in _bodies(entry) if not isinstance(body.kind, dict)]
        schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE + "{name}")
        renamed = {name: _plain(name, named) for name in components}
        self._of = {kind: _rename(schema, renamed) for kind, schema in zip(kinds, schemas, strict=True)}
        named.update({renamed[name]: _rename(schema, renamed) for name, schema in components.items()})

    def of(self, kind: Any) -> Json:
        return cast("Json", kind) if isinstance(kind, dict) else self._of[kind]

    def drop(self, *names: str) -> None:
        for name in names:
            self._named.pop(name, None)


def _bodies(entry: Entry) -> Iterator[Body]:
    for by_type in entry.answers.values():
        yield from (by_type or {}).values()


def _plain(name: str, taken: Json) -> str:
    """A name for a type of an answer: msgspec gives its module, too, where several types share the name."""
    short = name.removeprefix("server.api.")
    return f"{short}.answer" if short in taken else short


def _rename(schema: Any, names: dict[str, str]) -> Any:
    if isinstance(schema, dict):
        return {key: _rename(value, names) for key, value in schema.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(schema, list):
        return [_rename(value, names) for value in schema]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(schema, str) and schema.startswith(REFERENCE):
        return REFERENCE + names[schema.removeprefix(REFERENCE)]
    return schema


def _describe_request(endpoint: Json, entry: Entry) -> None:
    for parameter in endpoint.get("parameters", ()):
        if parameter["name"] in entry.parameters:
            parameter["example"] = entry.parameters[parameter["name"]]
    for content in endpoint.get("requestBody", {}).get("content", {}).values():
        if entry.requests:
            content["examples"] = {_key(words): {"summary": words, "value": v} for words, v in entry.requests.items()}


def _key(words: str) -> str:
    return re.sub(r"\W+", "-", words.lower()).strip("-")


def _describe_answers(endpoint: Json, entry: Entry, schemas: _Schemas) -> None:
    endpoint["responses"] = {}
    for status, by_type in entry.answers.items():
        answer: Json = {"description": "Done." if status < 300 else REFUSALS[status], "headers": _HEADERS}
        if by_type:
            answer["content"] = {
                media_type: {"schema": schemas.of(body.kind), "example": body.example}
                for media_type, body in by_type.items()
            }
        endpoint["responses"][str(status)] = answer


def _describe_errors(endpoint: Json, path: str, entry: Entry, schemas: _Schemas) -> None:
    statuses = {*EVERYWHERE, *entry.errors, *(WITH_A_BODY if "requestBody" in endpoint else ())}
    for status in sorted(statuses):
        error = RequestError(REFUSALS[status], status=status)
        example = msgspec.json.decode(error_body(error, path))
        endpoint["responses"].setdefault(
            str(status),
            {
                "description": REFUSALS[status],
                "headers": _HEADERS,
                "content": {JSON: {"schema": shape(example), "example": example}},
            },
        )


_HEADERS: dict[str, Any] = {
    "x-request-id": {
        "description": "The request's id: the client's own, or one made here.",
        "schema": {"type": "string"},
    }
}
