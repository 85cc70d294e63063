"""Entries of Anthropic's endpoints."""

from typing import Any

from server.api.anthropic.output import MessageObject
from server.api.reference.entry import JSON, SSE, Body, Entries, Entry, events, like

_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_USAGE: dict[str, Any] = {
    "input_tokens": 15,
    "output_tokens": 8,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "output_tokens_details": {"thinking_tokens": 0},
}
_MESSAGE: dict[str, Any] = {
    "id": "msg_0b02017e2fa5",
    "model": "demo",
    "content": [{"type": "text", "text": "The capital of France is Paris.", "citations": None}],
    "usage": _USAGE,
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "type": "message",
    "role": "assistant",
}
_DELTA = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" Paris"}}'

ENTRIES: Entries = {
    ("post", "/v1/messages"): Entry(
        requests={
            "Ask": {"model": "demo", "max_tokens": 32, "messages": _QUESTION},
            "Stream": {
                "model": "demo",
                "max_tokens": 32,
                "system": "Answer in one word.",
                "messages": _QUESTION,
                "stream": True,
            },
            "Offer a tool": {
                "model": "demo",
                "max_tokens": 64,
                "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
                "tools": [_WEATHER],
                "tool_choice": {"type": "auto"},
            },
        },
        answers={200: {JSON: Body(MessageObject, _MESSAGE), SSE: events(_DELTA, "content_block_delta")}},
        errors=(404, 429),
    ),
    ("post", "/v1/messages/count_tokens"): Entry(
        requests={"Count": {"model": "demo", "messages": _QUESTION}},
        answers={200: {JSON: like({"input_tokens": 15})}},
        errors=(404, 429),
    ),
}
