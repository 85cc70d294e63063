"""What schemathesis is told beside the OpenAPI document: ask the one model there is, and only for short answers."""

from __future__ import annotations

from typing import Any, cast

import schemathesis

MODEL = "demo"
ABSENT = "absent"
MOST_TOKENS = 3
MOST_CHOICES = 2
ALLOWED_CHOICES = 128
LIMIT_OF = {
    "/v1/chat/completions": "max_completion_tokens",
    "/v1/completions": "max_tokens",
    "/v1/messages": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/completion": "n_predict",
    "/infill": "n_predict",
    "/api/chat": "num_predict",
    "/api/generate": "num_predict",
}
"""The field that bounds an answer's tokens, by the path of the endpoint that generates; Ollama's lie in `options`."""

KEEPS_MODEL_FROM = frozenset({"/admin/unload", "/api/delete", "/api/copy", "/api/create", "/api/pull", "/api/push"})
"""Endpoints that would take the model away, or bring others from elsewhere: they are asked for one that is absent."""


@schemathesis.hook  # pyright: ignore[reportUnknownMemberType]
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], **arguments: Any) -> None:
    """Shorten what a sound request would generate. What is wrong with a request stays wrong."""
    if not isinstance(case.body, dict):
        return
    body = cast("dict[str, Any]", case.body)
    if case.path in KEEPS_MODEL_FROM:
        body.update({name: ABSENT for name in ("model", "name", "source") if isinstance(body.get(name), str)})
    if case.path in LIMIT_OF:
        if isinstance(body.get("model"), str):
            body["model"] = MODEL
        options: object = body.setdefault("options", {}) if case.path.startswith("/api/") else body
        if isinstance(options, dict):
            _shorten(cast("dict[str, Any]", options), LIMIT_OF[case.path])


def _shorten(options: dict[str, Any], limit: str) -> None:
    tokens: object = options.get(limit)
    if tokens is None or (type(tokens) is int and tokens > MOST_TOKENS):
        options[limit] = MOST_TOKENS
    for name in ("n", "best_of", "n_cmpl"):
        choices: object = options.get(name)
        if type(choices) is int and MOST_CHOICES < choices <= ALLOWED_CHOICES:
            options[name] = MOST_CHOICES
