"""Entries of Ollama's endpoints."""

from typing import Any

import msgspec

from server.api.ollama.chat import ChatResponse
from server.api.ollama.generate import GenerateResponse
from server.api.ollama.models import ListedModel, RunningModel
from server.api.reference.entry import JSON, NDJSON, Body, Entries, Entry, like, lines
from server.api.reference.examples import QUESTION, WEATHER


class ListedModels(msgspec.Struct):
    """All models that requests may name."""

    models: list[ListedModel]


class LoadedModels(msgspec.Struct):
    """All loaded models."""

    models: list[RunningModel]


_FIGURES: dict[str, Any] = {
    "model": "demo",
    "created_at": "2026-01-01T00:00:00Z",
    "done": True,
    "done_reason": "stop",
    "total_duration": 91_000_000,
    "load_duration": 12_000,
    "prompt_eval_count": 15,
    "prompt_eval_duration": 20_000_000,
    "eval_count": 8,
    "eval_duration": 70_000_000,
}
_DETAILS: dict[str, Any] = {
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "4.1M",
    "quantization_level": "F16",
    "format": "gguf",
    "parent_model": "",
}
_DIGEST = "sha256:ea15f1865b75ad8eaf6f7a0adf314385409b8960be70892e183e585b984d21d2"
_MODEL: dict[str, Any] = {
    "name": "demo:latest",
    "model": "demo:latest",
    "size": 8_205_856,
    "digest": _DIGEST.removeprefix("sha256:"),
    "details": _DETAILS,
}
_LISTED: dict[str, Any] = {**_MODEL, "modified_at": "2026-01-01T00:00:00Z"}
_LOADED: dict[str, Any] = {
    **_MODEL,
    "expires_at": "2026-01-01T00:05:00Z",
    "size_vram": 0,
    "context_length": 4096,
}
_CHAT_LINES = (
    '{"model":"demo","created_at":"2026-01-01T00:00:00Z","done":false,'
    '"message":{"role":"assistant","content":"Paris"}}\n'
)
_GENERATE_LINES = '{"model":"demo","created_at":"2026-01-01T00:00:00Z","done":false,"response":" a time"}\n'
_EMBEDDINGS: dict[str, Any] = {
    "model": "demo",
    "embeddings": [[0.3974, -0.6927]],
    "total_duration": 14_000_000,
    "load_duration": 12_000,
    "prompt_eval_count": 4,
}
_DONE: dict[int, dict[str, Body] | None] = {
    200: {JSON: like({"status": "success"}), NDJSON: lines('{"status":"success"}\n')}
}

ENTRIES: Entries = {
    ("post", "/api/chat"): Entry(
        requests={
            "Ask": {"model": "demo", "messages": QUESTION, "stream": False, "options": {"num_predict": 32}},
            "Stream": {"model": "demo", "messages": QUESTION, "keep_alive": "10m", "options": {"temperature": 0}},
            "Offer a tool": {
                "model": "demo",
                "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
                "tools": [WEATHER],
                "stream": False,
            },
        },
        answers={
            200: {
                JSON: Body(ChatResponse, {**_FIGURES, "message": {"role": "assistant", "content": "Paris."}}),
                NDJSON: lines(_CHAT_LINES),
            }
        },
        errors=(404, 409, 429),
    ),
    ("post", "/api/generate"): Entry(
        requests={
            "Continue a prompt": {"model": "demo", "prompt": "Once upon", "stream": False},
            "Without a template": {"model": "demo", "prompt": "Once upon", "raw": True, "options": {"num_predict": 8}},
        },
        answers={
            200: {
                JSON: Body(GenerateResponse, {**_FIGURES, "response": " a time"}),
                NDJSON: lines(_GENERATE_LINES),
            }
        },
        errors=(404, 409, 429),
    ),
    ("post", "/api/embed"): Entry(
        requests={"Embed": {"model": "demo", "input": ["One", "Two"]}},
        answers={200: {JSON: like(_EMBEDDINGS)}},
        errors=(404, 409, 429),
    ),
    ("post", "/api/embeddings"): Entry(
        requests={"Embed": {"model": "demo", "prompt": "Once upon a time"}},
        answers={200: {JSON: like({"embedding": [0.3974, -0.6927]})}},
        errors=(404, 409, 429),
    ),
    ("get", "/api/version"): Entry(answers={200: {JSON: like({"version": "0.12.6", "brim": "0.1.0"})}}),
    ("get", "/api/tags"): Entry(answers={200: {JSON: Body(ListedModels, {"models": [_LISTED]})}}),
    ("get", "/api/ps"): Entry(answers={200: {JSON: Body(LoadedModels, {"models": [_LOADED]})}}),
    ("post", "/api/show"): Entry(
        requests={"Describe": {"model": "demo"}},
        answers={
            200: {
                JSON: like(
                    {
                        "modelfile": "FROM demo.gguf\n",
                        "template": "{{ messages }}",
                        "details": _DETAILS,
                        "model_info": {"general.parameter_count": 4_066_560},
                        "capabilities": ["completion", "tools"],
                        "modified_at": "2026-01-01T00:00:00Z",
                    }
                )
            }
        },
        errors=(404, 409),
    ),
    ("post", "/api/create"): Entry(
        requests={
            "From another model": {"model": "pirate", "from": "demo", "system": "Talk like a pirate."},
            "From an uploaded file": {"model": "sent", "files": {"sent.gguf": _DIGEST}},
        },
        answers=_DONE,
        errors=(404, 409),
    ),
    ("post", "/api/blobs/{digest}"): Entry(
        requests={"A file's bytes": "GGUF"},
        parameters={"digest": _DIGEST},
        answers={200: None, 201: None},
        errors=(507,),
    ),
    ("post", "/api/copy"): Entry(
        requests={"Copy": {"source": "demo", "destination": "demo-2"}}, answers={200: None}, errors=(404, 409)
    ),
    ("delete", "/api/delete"): Entry(requests={"Delete": {"model": "demo-2"}}, answers={200: None}, errors=(404, 409)),
    ("post", "/api/pull"): Entry(requests={"Pull": {"model": "demo"}}, answers=_DONE, errors=(404, 409, 502)),
}
