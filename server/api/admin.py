"""What the command line asks of a running server: which models are loaded and where they lie, and to end one."""

import asyncio
import time
from typing import Self

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from server.api.context import ContextOf
from server.errors import RequestError
from server.models.loading import LoadedModel
from server.offload.holding import Holding

router = APIRouter(tags=["Operation"])

ANSWER_WITHIN = 5.0
"""Seconds that a worker is given to tell its figures."""


class DeviceHolding(msgspec.Struct):
    """What a device holds of a model, or of what was loaded beside it. Sizes are in bytes.

    `part` is `model`, `draft` or `projector`. `planned_bytes` and `layers` are null where what was loaded is not what
    was planned, as after a step down.
    `deviates` tells that the two differ by more than 2 %; never of the host, where weights are pages of a mapped file.
    """

    name: str
    layers: int | None
    planned_bytes: int | None
    allocated_bytes: int
    deviates: bool
    part: str

    @classmethod
    def of(cls, holding: Holding) -> Self:
        """One of a loaded model's holdings."""
        share = holding.share
        layers = None if share.planned is None else share.layers
        return cls(share.device, layers, share.planned, holding.allocated, holding.deviates, share.part)


class ModelPlacement(msgspec.Struct):
    """Where a loaded model lies and how fast it is.

    Speeds are in tokens a second: predicted for one request alone, and measured as the mean of all requests' streams
    so far (null before the first). `layers_on_gpu` counts layers there whole or in part.
    """

    name: str
    summary: str
    context: int
    parallel: int
    layers_total: int
    layers_on_gpu: int
    predicted_tokens_per_second: float | None
    measured_tokens_per_second: float | None
    devices: list[DeviceHolding]


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
    devices: list[DeviceHolding] = msgspec.field(default_factory=list[DeviceHolding])
    running: int = 0
    uptime: float = 0.0
    until: float | None = None


class Unload(BaseModel):
    """Which model to end, and how long its running requests may take."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    grace: float = Field(30.0, ge=0, le=3600)


@router.get("/admin/models", summary="List running models")
async def running_models(context: ContextOf) -> Response:
    """Each wanted model, how it stands, and where it lies."""
    found: list[RunningModel] = []
    for status in context.manager.statuses():
        one = RunningModel(status.name, status.state, status.stage, status.progress, until=status.until)
        if model := status.model:
            one.placement = model.engine.spec.placement.summary
            one.context, one.parallel = model.info.context, model.info.parallel
            one.n_bytes, one.device_bytes = model.info.n_bytes, model.info.device_bytes
            one.devices = [DeviceHolding.of(holding) for holding in model.holdings]
            one.running = model.engine.running
            one.uptime = time.monotonic() - model.loaded_at
        found.append(one)
    return Response(msgspec.json.encode({"models": found}), media_type="application/json")


@router.get("/api/placement", summary="Tell where models lie")
async def placement(context: ContextOf) -> Response:
    """Each loaded model's bytes on every device, planned and allocated, and its speed, predicted and measured."""
    models = context.manager.loaded()
    speeds = await asyncio.gather(*(_measured_speed(model) for model in models))
    found = [_placement(model, speed) for model, speed in zip(models, speeds, strict=True)]
    answer = {"vram_budget_bytes": context.settings.vram_budget, "models": found}
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _placement(model: LoadedModel, measured: float | None) -> ModelPlacement:
    return ModelPlacement(
        name=model.engine.spec.name,
        summary=model.engine.spec.placement.summary,
        context=model.info.context,
        parallel=model.info.parallel,
        layers_total=model.info.n_layers,
        layers_on_gpu=max(0, model.engine.spec.placement.n_gpu_layers - 1),  # llama.cpp counts the output too
        predicted_tokens_per_second=model.predicted,
        measured_tokens_per_second=measured,
        devices=[DeviceHolding.of(holding) for holding in model.holdings],
    )


async def _measured_speed(model: LoadedModel) -> float | None:
    """Tokens a second of one stream, the mean of all so far; None before there was one, or in a very long step."""
    try:
        stats = await asyncio.wait_for(model.engine.stats(), ANSWER_WITHIN)
    except (RequestError, TimeoutError):
        return None
    gaps = stats.histograms.get("inter_token_seconds")
    return gaps.count / gaps.total if gaps and gaps.total else None


@router.post("/admin/unload", summary="End a model", status_code=204)
async def unload(body: Unload, context: ContextOf) -> Response:
    """End a model's process and free its memory. Its running requests may end first."""
    await context.manager.unload(body.model, body.grace)
    return Response(status_code=204)
