"""Entries of the endpoints that tell of the server itself and steer it."""

from typing import Any

import msgspec

from server.api.admin import ModelPlacement, RunningModel
from server.api.reference.entry import JSON, TEXT, Body, Entries, Entry


class RunningModels(msgspec.Struct):
    """The models that are wanted: loaded, loading, or waiting to be loaded again."""

    models: list[RunningModel]


class Placements(msgspec.Struct):
    """Where the loaded models lie; the budget is null where all free memory may be used."""

    vram_budget_bytes: int | None
    models: list[ModelPlacement]


class WaitingModel(msgspec.Struct):
    """A model that cannot answer yet, and why."""

    model: str
    state: str
    reason: str
    progress: float


class Health(msgspec.Struct, omit_defaults=True):
    """Whether the server would answer a request now."""

    status: str
    models: list[WaitingModel] = []


_LOADING: dict[str, Any] = {
    "status": "loading",
    "models": [{"model": "demo", "state": "loading", "reason": "reading weights", "progress": 0.4}],
}
_DEVICE: dict[str, Any] = {
    "name": "CPU",
    "layers": 8,
    "planned_bytes": 62_000_000,
    "allocated_bytes": 64_000_000,
    "deviates": False,
    "part": "model",
}
_PLACED: dict[str, Any] = {
    "name": "demo",
    "summary": "all 8 layers on the CPU",
    "context": 4096,
    "parallel": 8,
    "layers_total": 8,
    "layers_on_gpu": 0,
    "predicted_tokens_per_second": 112.5,
    "measured_tokens_per_second": None,
    "devices": [_DEVICE],
}
_RUNNING: dict[str, Any] = {
    "name": "demo",
    "state": "ready",
    "reason": "",
    "progress": 1.0,
    "placement": "all 8 layers on the CPU",
    "context": 4096,
    "parallel": 8,
    "n_bytes": 31_000_000,
    "device_bytes": {"CPU": 64_000_000},
    "devices": [_DEVICE],
    "running": 1,
    "uptime": 61.5,
}

ENTRIES: Entries = {
    ("get", "/health"): Entry(
        answers={200: {JSON: Body(Health, {"status": "ok"})}, 503: {JSON: Body(Health, _LOADING)}}
    ),
    ("get", "/metrics"): Entry(
        answers={
            200: {
                TEXT: Body(
                    {"type": "string"},
                    '# TYPE brim_requests_running gauge\nbrim_requests_running{model="demo"} 1\n',
                )
            }
        }
    ),
    ("get", "/admin/models"): Entry(answers={200: {JSON: Body(RunningModels, {"models": [_RUNNING]})}}),
    ("get", "/api/placement"): Entry(
        answers={200: {JSON: Body(Placements, {"vram_budget_bytes": None, "models": [_PLACED]})}}
    ),
    ("post", "/admin/unload"): Entry(
        answers={204: None},
        requests={"End a model once its requests have ended": {"model": "demo", "grace": 30}},
        errors=(404,),
    ),
}
