"""GET /api/version, /api/tags and /api/ps: whose API this is, which models there are, and which are loaded."""

from datetime import UTC, datetime, timedelta

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

import server
from server.api.context import ContextOf
from server.api.ollama.known import Known, ModelDetails, known_models
from server.api.ollama.wire import JsonRoute, json_response, tagged, timestamp
from server.models.slot import ModelStatus
from server.offload.holding import HOST

router = APIRouter(prefix="/api", tags=["Ollama"], route_class=JsonRoute)

OLLAMA_RELEASE = "0.12.6"
"""The release whose API this is: some clients ask for a lowest one."""
FOR_EVER = timedelta(days=365 * 290)
"""What Ollama adds to the time of day for a model that stays: about as long as Go can count nanoseconds."""


class ListedModel(msgspec.Struct):
    """One of the models there are. `size` is in bytes."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class RunningModel(msgspec.Struct):
    """One of the loaded models. Sizes are in bytes, the context length in tokens."""

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int


@router.get("/version", summary="Tell which release of Ollama's API this is")
@router.head("/version", include_in_schema=False)
async def version() -> Response:
    """The release of Ollama whose API this follows, and brim's own version."""
    return json_response({"version": OLLAMA_RELEASE, "brim": server.__version__})


@router.get("/tags", summary="List models")
@router.head("/tags", include_in_schema=False)
async def tags(context: ContextOf) -> Response:
    """The models that requests may name: those in the store and the loaded ones, newest first."""
    models = await known_models(context.manager)
    newest = sorted(models.values(), key=lambda known: known.modified, reverse=True)
    return json_response({"models": [_listed(known) for known in newest]})


@router.get("/ps", summary="List loaded models")
async def ps(context: ContextOf) -> Response:
    """The loaded models, what memory they take, and when they are unloaded if nobody uses them."""
    statuses = [status for status in context.manager.statuses() if status.model]
    models = await known_models(context.manager)
    return json_response({"models": [_running(status, models[status.name]) for status in statuses]})


def _listed(known: Known) -> ListedModel:
    name = tagged(known.name)
    return ListedModel(name, name, timestamp(known.modified), known.size, known.digest, known.described)


def _running(status: ModelStatus, known: Known) -> RunningModel:
    assert status.model
    info, name = status.model.info, tagged(status.name)
    left = FOR_EVER if status.until is None else timedelta(seconds=status.until)
    return RunningModel(
        name=name,
        model=name,
        size=max(info.n_bytes, sum(info.device_bytes.values())),
        digest=known.digest,
        details=known.described,
        expires_at=timestamp(datetime.now(UTC) + left),
        size_vram=sum(held.allocated for held in status.model.holdings if held.share.device != HOST),
        context_length=info.context,
    )
