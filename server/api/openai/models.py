"""GET /v1/models and /v1/models/{id}."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.errors import RequestError
from server.models.manifest import meant

router = APIRouter(tags=["OpenAI"])


class ModelObject(msgspec.Struct, omit_defaults=True):
    """OpenAI's model object, with what clients like to know beside it."""

    id: str
    created: int
    object: str = ""
    owned_by: str = ""
    loaded: bool | None = None
    context_length: int | None = None
    meta: dict[str, int] | None = None
    """llama-server's figures of a loaded model."""


def _models(context: Context) -> dict[str, ModelObject]:
    started = context.started_at
    found = {
        manifest.name: ModelObject(manifest.name, int(manifest.created.timestamp()), "model", "brim", False)
        for manifest in context.manager.store.list()
    }
    for status in context.manager.statuses():
        one = found.setdefault(status.name, ModelObject(status.name, started, "model", "brim", False))
        if status.model:
            one.loaded = True
            info = status.model.info
            one.context_length = info.context
            one.meta = {
                "n_vocab": info.n_vocab,
                "n_ctx_train": info.context_train,
                "n_embd": info.n_embd,
                "n_params": info.n_params,
                "size": info.n_bytes,
            }
    return found


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


@router.get("/v1/models", summary="List models")
@router.get("/models", include_in_schema=False)
@router.head("/v1/models", include_in_schema=False)
@router.head("/models", include_in_schema=False)
async def list_models(context: ContextOf) -> Response:
    """The models that requests may name: the loaded ones and those in the store."""
    return _json({"object": "list", "data": list(_models(context).values())})


@router.get("/v1/models/{name:path}", summary="Describe a model")
async def describe_model(name: str, context: ContextOf) -> Response:
    """One of the models that requests may name."""
    models = _models(context)
    if known := meant(name, models):
        return _json(models[known])
    raise RequestError(f"there is no model '{name}'", status=404, code="model_not_found", param="model")
