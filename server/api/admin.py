"""What the command line asks of a running server: which models are loaded, and to end one."""

import time

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from server.api.context import ContextOf

router = APIRouter(prefix="/admin", tags=["Operation"])


class RunningModel(msgspec.Struct):
    """A loaded or loading model. Sizes are in bytes, times in seconds; `until` is null where it stays loaded."""

    name: str
    state: str
    reason: str
    progress: float
    placement: str = ""
    context: int = 0
    parallel: int = 0
    n_bytes: int = 0
    device_bytes: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    running: int = 0
    uptime: float = 0.0
    until: float | None = None


class Unload(BaseModel):
    """Which model to end, and how long its running requests may take."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    grace: float = Field(30.0, ge=0, le=3600)


@router.get("/models", summary="List running models")
async def running_models(context: ContextOf) -> Response:
    """Each wanted model, how it stands, and where it lies."""
    found: list[RunningModel] = []
    for status in context.manager.statuses():
        one = RunningModel(status.name, status.state, status.stage, status.progress, until=status.until)
        if model := status.model:
            one.placement = model.engine.spec.placement.summary
            one.context, one.parallel = model.info.context, model.info.parallel
            one.n_bytes, one.device_bytes = model.info.n_bytes, model.info.device_bytes
            one.running = model.engine.running
            one.uptime = time.monotonic() - model.loaded_at
        found.append(one)
    return Response(msgspec.json.encode({"models": found}), media_type="application/json")


@router.post("/unload", summary="End a model", status_code=204)
async def unload(body: Unload, context: ContextOf) -> Response:
    """End a model's process and free its memory. Its running requests may end first."""
    await context.manager.unload(body.model, body.grace)
    return Response(status_code=204)
