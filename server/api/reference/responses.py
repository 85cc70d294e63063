"""Entries of OpenAI's responses."""

from typing import Any

from server.api.reference.entry import JSON, SSE, Body, Entries, Entry, events, like

_ID = "resp_181d5bbf6cd3"
_OUTPUT: list[dict[str, Any]] = [
    {
        "type": "message",
        "id": "msg_7a4193bc1434",
        "content": [
            {"type": "output_text", "text": "The capital of France is Paris.", "annotations": [], "logprobs": []}
        ],
        "status": "completed",
        "role": "assistant",
    }
]
_RESPONSE: dict[str, Any] = {
    "id": _ID,
    "object": "response",
    "created_at": 1767225600,
    "completed_at": None,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "demo",
    "usage": {
        "input_tokens": 15,
        "input_tokens_details": {"cached_tokens": 14, "cache_write_tokens": 0},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 23,
    },
    "instructions": None,
    "max_output_tokens": None,
    "previous_response_id": None,
    "store": True,
    "temperature": None,
    "text": None,
    "tool_choice": None,
    "tools": [],
    "top_p": None,
    "output": [],
}
_WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_DELTA = '{"type":"response.output_text.delta","sequence_number":4,"output_index":0,"content_index":0,"delta":" Paris"}'


def _response() -> Body:
    """The response object; its output is told apart by type."""
    whole = like(_RESPONSE)
    return Body(whole.kind, {**_RESPONSE, "output": _OUTPUT})


ENTRIES: Entries = {
    ("post", "/v1/responses"): Entry(
        requests={
            "Ask": {"model": "demo", "input": "What is the capital of France?", "max_output_tokens": 32},
            "Stream": {
                "instructions": "Answer in one word.",
                "input": "What is the capital of France?",
                "stream": True,
            },
            "Offer a tool": {"input": "What is the weather in Oslo?", "tools": [_WEATHER]},
        },
        answers={200: {JSON: _response(), SSE: events(_DELTA, "response.output_text.delta")}},
        errors=(404, 429),
    ),
    ("post", "/v1/responses/input_tokens"): Entry(
        requests={"Count": {"model": "demo", "input": "What is the capital of France?"}},
        answers={200: {JSON: like({"object": "response.input_tokens", "input_tokens": 15})}},
        errors=(404, 429),
    ),
    ("get", "/v1/responses/{response_id}"): Entry(
        answers={200: {JSON: _response()}}, parameters={"response_id": _ID}, errors=(404,)
    ),
    ("delete", "/v1/responses/{response_id}"): Entry(
        answers={200: {JSON: like({"id": _ID, "object": "response", "deleted": True})}},
        parameters={"response_id": _ID},
        errors=(404,),
    ),
    ("post", "/v1/responses/{response_id}/cancel"): Entry(answers={}, parameters={"response_id": _ID}, errors=(404,)),
    ("get", "/v1/responses/{response_id}/input_items"): Entry(
        answers={
            200: {
                JSON: Body(
                    {
                        "type": "object",
                        "properties": {
                            "object": {"const": "list"},
                            "data": {"type": "array", "items": {"type": "object"}},
                            "first_id": {"type": ["string", "null"]},
                            "last_id": {"type": ["string", "null"]},
                            "has_more": {"type": "boolean"},
                        },
                        "required": ["object", "data", "first_id", "last_id", "has_more"],
                    },
                    {
                        "object": "list",
                        "data": [
                            {
                                "type": "message",
                                "role": "user",
                                "content": [{"type": "input_text", "text": "What is the capital of France?"}],
                                "id": "msg_5868af4f73b3",
                                "status": "completed",
                            }
                        ],
                        "first_id": "msg_5868af4f73b3",
                        "last_id": "msg_5868af4f73b3",
                        "has_more": False,
                    },
                )
            }
        },
        parameters={"response_id": _ID},
        errors=(404,),
    ),
}
