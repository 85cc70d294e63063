"""Entries of the endpoints that tell of the server itself and steer it."""

from typing import Any

import msgspec

from server.api.admin import RunningModel
from server.api.reference.entry import JSON, TEXT, Body, Entries, Entry


class RunningModels(msgspec.Struct):
    """The models that are wanted: loaded, loading, or waiting to be loaded again."""

    models: list[RunningModel]


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
    ("post", "/admin/unload"): Entry(
        answers={204: None}, requests={"End a model once its requests have ended": {"model": "demo", "grace": 30}}
    ),
}
