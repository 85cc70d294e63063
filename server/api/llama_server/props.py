"""GET /props and /slots: what a model is set to, and how busy it is."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.responses import Response

from server import __version__
from server.api.context import ContextOf
from server.api.llama_server.completion_request import DEFAULTS
from server.api.llama_server.settings import generation_settings
from server.api.sampling import sampling_of
from server.engine.request import Generate
from server.errors import RequestError
from server.models.loading import LoadedModel
from server.models.parameters import Parameters

router = APIRouter(tags=["llama-server"])

ModelName = Annotated[str | None, Query(description="A model's name; may be left out where just one is loaded.")]


@router.get("/props", summary="Tell what a model is set to")
async def props(context: ContextOf, model: ModelName = None) -> Response:
    """The settings that /completion starts from, the chat template, and what else clients of llama-server ask for."""
    loaded = await context.model(model, "vocabulary")
    info = loaded.info
    content: dict[str, Any] = {
        "default_generation_settings": {
            "n_ctx": info.context,
            "speculative": loaded.engine.spec.lookup or bool(loaded.engine.spec.draft_path),
            "params": _defaults(loaded),
        },
        "total_slots": info.parallel,
        "model_alias": loaded.name,
        "model_path": loaded.source.path.name,
        "modalities": {"vision": info.vision, "audio": info.hearing},
        "chat_template": loaded.template.source,
        "bos_token": info.bos_token,
        "eos_token": info.eos_token,
        "build_info": f"brim {__version__}",
        "is_sleeping": False,
    }
    return _json(content)


@router.get("/slots", summary="Tell how busy a model is")
async def slots(
    context: ContextOf, model: ModelName = None, fail_on_no_slot: Annotated[bool, Query()] = False
) -> Response:
    """As many entries as requests may run side by side. They stand for no fixed places: the busy ones come first."""
    loaded = await context.model(model)
    running = int((await loaded.engine.stats()).gauges.get("requests_running", 0))
    info = loaded.info
    if fail_on_no_slot and running >= info.parallel:
        raise RequestError("all slots are busy", status=503, code="no_slot", retry_after=1.0)
    params = _defaults(loaded)
    return _json(
        [
            {"id": index, "n_ctx": info.context, "is_processing": index < running, "params": params}
            for index in range(info.parallel)
        ]
    )


def _defaults(model: LoadedModel) -> dict[str, Any]:
    defaults = model.source.parameters.over(DEFAULTS)
    sampling = sampling_of(Parameters(), defaults)
    limit = defaults.num_predict if defaults.num_predict is not None and defaults.num_predict >= 0 else None
    request = Generate(id=0, prompt="", sampling=sampling, max_tokens=limit, stop=list(defaults.stop))
    return generation_settings(request, model.info.context)


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
