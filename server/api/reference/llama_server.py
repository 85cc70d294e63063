"""Entries of llama-server's own endpoints."""

from typing import Any

from server.api.reference.entry import JSON, SSE, Body, Entries, Entry, events, like

_SETTINGS: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "seed": -1,
    "n_predict": 4,
    "n_ctx": 4096,
    "stop": [],
    "grammar": "",
}
_TIMINGS: dict[str, Any] = {
    "cache_n": 0,
    "prompt_n": 2,
    "prompt_ms": 9.6,
    "prompt_per_token_ms": 4.8,
    "prompt_per_second": 209.4,
    "predicted_n": 4,
    "predicted_ms": 51.1,
    "predicted_per_token_ms": 12.8,
    "predicted_per_second": 78.2,
    "queue_ms": 0.7,
}
_COMPLETION: dict[str, Any] = {
    "index": 0,
    "content": " a time a kind",
    "tokens": [],
    "id_slot": -1,
    "stop": True,
    "model": "demo",
    "tokens_predicted": 4,
    "tokens_evaluated": 2,
    "generation_settings": _SETTINGS,
    "prompt": None,
    "has_new_line": False,
    "truncated": False,
    "stop_type": "limit",
    "stopping_word": "",
    "tokens_cached": 0,
    "timings": _TIMINGS,
}
_PART = '{"index":0,"content":" time","tokens":[566],"stop":false}'
_SLOT: dict[str, Any] = {"id": 0, "n_ctx": 4096, "is_processing": False, "params": _SETTINGS}
_PROPS: dict[str, Any] = {
    "default_generation_settings": {"n_ctx": 4096, "speculative": True, "params": _SETTINGS},
    "total_slots": 8,
    "model_alias": "demo",
    "model_path": "demo.gguf",
    "modalities": {"vision": False, "audio": False},
    "chat_template": None,
    "bos_token": None,
    "eos_token": None,
    "build_info": "brim 0.1.0",
    "is_sleeping": False,
}


def _completion() -> Body:
    """An object; a list of them for several prompts or continuations; and some members only where asked for."""
    return Body({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}, _COMPLETION)


ENTRIES: Entries = {
    ("post", "/completion"): Entry(
        requests={
            "Continue a text": {"prompt": "Once upon", "n_predict": 4},
            "Stream": {"prompt": "Once upon", "n_predict": 4, "stream": True, "temperature": 0},
        },
        answers={200: {JSON: _completion(), SSE: events(_PART)}},
        errors=(404, 429),
    ),
    ("post", "/infill"): Entry(
        requests={"Fill a gap": {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 8}},
        answers={200: {JSON: _completion(), SSE: events(_PART)}},
        errors=(404, 429),
    ),
    ("post", "/tokenize"): Entry(
        requests={
            "Ids": {"content": "Once upon"},
            "Ids and their texts": {"content": "Once upon", "with_pieces": True, "add_special": True},
        },
        answers={200: {JSON: Body({"type": "object", "required": ["tokens"]}, {"tokens": [626, 629]})}},
        errors=(404, 429),
    ),
    ("post", "/detokenize"): Entry(
        requests={"Text": {"tokens": [626, 629]}},
        answers={200: {JSON: like({"content": "Once upon"})}},
        errors=(404, 429),
    ),
    ("post", "/apply-template"): Entry(
        requests={"Render": {"messages": [{"role": "user", "content": "Hi"}]}},
        answers={200: {JSON: like({"prompt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"})}},
        errors=(404, 429),
    ),
    ("post", "/embedding"): Entry(
        requests={"Embed": {"content": "Once upon a time"}},
        answers={200: {JSON: like([{"index": 0, "embedding": [[0.0461, -0.0804]]}])}},
        errors=(404, 429),
    ),
    ("get", "/props"): Entry(answers={200: {JSON: like(_PROPS)}}, parameters={"model": "demo"}, errors=(404, 429)),
    ("get", "/slots"): Entry(answers={200: {JSON: like([_SLOT])}}, parameters={"model": "demo"}, errors=(404, 429)),
}
