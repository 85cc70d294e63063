"""POST /api/show: what a model is made of and what it can do."""

import asyncio
import re
from typing import Any, cast

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from converter.errors import ConversionError
from converter.gguf_info import GGUFInfo, read_gguf_info
from server.api.context import ContextOf
from server.api.ollama.known import Known, known_model
from server.api.ollama.thinking import can_think
from server.api.ollama.wire import JsonRoute, NamedModel, json_response, timestamp
from server.chat.template import CHATML
from server.errors import BrimError, RequestError
from server.models.describe import as_modelfile_text, template_of
from server.models.embedding import pooling_of
from server.models.manager import ModelManager
from server.models.manifest import Manifest
from server.models.projector import Senses, senses_of

router = APIRouter(prefix="/api", tags=["Ollama"], route_class=JsonRoute)

LONGEST_LIST = 32
"""Longer lists in a model's metadata, such as its vocabulary, are shown only when asked for."""
_FIM_KEYS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")


class ShowRequest(NamedModel):
    """Which model to describe; `verbose` adds its vocabulary."""

    verbose: bool = False
    system: str | None = None
    """Without effect, as are the next two: Ollama's own ignore them too."""
    template: str | None = None
    options: dict[str, Any] | None = None


@router.post("/show", summary="Describe a model")
async def show(body: ShowRequest, context: ContextOf) -> Response:
    """A model's Modelfile, parameters, template, metadata, and what it can do."""
    known = await known_model(context.manager, body.model)
    try:
        return json_response(await asyncio.to_thread(_shown, context.manager, known, verbose=body.verbose))
    except (ConversionError, BrimError) as error:
        message = f"'{body.model}' cannot be described: {error}"
        raise RequestError(message, status=404, code="model_not_found", param="model") from error


def _shown(manager: ModelManager, known: Known, *, verbose: bool) -> dict[str, Any]:
    """Reads files. Raises ConversionError or BrimError where it cannot."""
    info = read_gguf_info(known.path)
    projector = read_gguf_info(known.projector) if known.projector else None
    template = _template(known, info, manager)
    shown: dict[str, Any] = {
        "modelfile": f"FROM {known.path}\n",
        "template": template or CHATML,
        "details": known.described,
        "model_info": _metadata(info, verbose=verbose),
        "projector_info": _metadata(projector, verbose=verbose) if projector else None,
        "capabilities": _capabilities(info, template, senses_of(projector) if projector else None),
        "modified_at": timestamp(known.modified),
    }
    if manifest := known.manifest:
        shown |= {
            "modelfile": as_modelfile_text(manager.store, manifest),
            "parameters": _parameter_lines(manifest),
            "license": "\n".join(manifest.licenses),
            "system": manifest.system or "",
            "messages": [{"role": message.role, "content": message.text} for message in manifest.messages],
        }
    return {key: value for key, value in shown.items() if value not in ("", [], None)}


def _template(known: Known, info: GGUFInfo, manager: ModelManager) -> str:
    """The chat template's source; empty where the model has none."""
    if known.manifest:
        return template_of(manager.store, known.manifest) or ""
    return str(info.get("tokenizer.chat_template", ""))


def _parameter_lines(manifest: Manifest) -> str:
    """A parameter a line, a `stop` for each of its texts."""
    lines: list[str] = []
    for name, value in manifest.parameters.items():
        values = value if isinstance(value, tuple) else (value,)
        lines += [f"{name:<30} {msgspec.json.encode(one).decode() if isinstance(one, str) else one}" for one in values]
    return "\n".join(lines)


def _metadata(info: GGUFInfo, *, verbose: bool) -> dict[str, Any]:
    """The file's metadata; null stands for a long list."""
    found = {key: field.value for key, field in info.fields.items() if key != "tokenizer.chat_template"}
    found["general.parameter_count"] = info.parameters
    return found if verbose else {key: None if _is_long(value) else value for key, value in found.items()}


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(cast("list[Any]", value)) > LONGEST_LIST


def _capabilities(info: GGUFInfo, template: str, senses: Senses | None) -> list[str]:
    """What a model can do, in Ollama's words, as far as its files and template tell."""
    if pooling_of(info):
        return ["embedding"]
    found = ["completion"]
    if re.search(r"\btools\b", template):
        found.append("tools")
    if any(key in info.fields for key in _FIM_KEYS):
        found.append("insert")
    if can_think(template):
        found.append("thinking")
    if senses and senses.vision:
        found.append("vision")
    if senses and senses.hearing:
        found.append("audio")
    return found
