"""GET /health: whether a request would be answered now."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from server.api.context import ContextOf

router = APIRouter(tags=["Operation"])


@router.get("/health", summary="Tell whether the models can answer")
@router.get("/v1/health", include_in_schema=False)
@router.head("/health", include_in_schema=False)
@router.head("/v1/health", include_in_schema=False)
async def health(request: Request, context: ContextOf) -> Response:
    """200 once every model named at the start can answer; before, 503 with the state of each that cannot.

    Without a key, where one is needed, the models are not named.
    """
    statuses = [status for status in context.manager.statuses() if status.stays]
    if request.app.state.traffic.draining:
        return _answer(503, {"status": "shutting down"})
    models = [
        {"model": status.name, "state": status.state, "reason": status.stage, "progress": round(status.progress, 3)}
        for status in statuses
        if status.state != "ready"
    ]
    if not models:
        return _answer(200, {"status": "ok"})
    loading = all(status.state in ("ready", "loading") for status in statuses)
    state = {"status": "loading" if loading else "unavailable"}
    return _answer(503, {**state, "models": models} if request.state.admitted else state)


def _answer(status: int, content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
