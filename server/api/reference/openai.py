"""Entries of OpenAI's endpoints, and of ranking, which OpenAI's clients expect beside them."""

from typing import Any

import msgspec

from server.api.openai.chat import ChatCompletion
from server.api.openai.completions import Completion
from server.api.openai.embeddings import EmbeddingList
from server.api.openai.models import ModelObject
from server.api.reference.entry import JSON, SSE, Body, Entries, Entry, events, like
from server.api.reference.examples import QUESTION, WEATHER
from server.api.rerank import Ranking


class ModelList(msgspec.Struct):
    """All models that requests may name."""

    object: str
    data: list[ModelObject]


_MODEL: dict[str, Any] = {
    "id": "demo",
    "created": 1767225600,
    "object": "model",
    "owned_by": "brim",
    "loaded": True,
    "context_length": 4096,
}
_PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_USAGE: dict[str, Any] = {
    "prompt_tokens": 14,
    "completion_tokens": 7,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 9},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
_ANSWER = {"id": "chatcmpl-4be1", "created": 1767225600, "model": "demo", "system_fingerprint": "brim-8e2c5f3a1b77"}
_CHUNK = (
    '{"id":"chatcmpl-4be1","object":"chat.completion.chunk","created":1767225600,"model":"demo",'
    '"system_fingerprint":"brim-8e2c5f3a1b77","choices":[{"index":0,"delta":{"content":"Paris"},'
    '"logprobs":null,"finish_reason":null}]}'
)
_TEXT_CHUNK = (
    '{"id":"cmpl-4be1","object":"text_completion","created":1767225600,"model":"demo",'
    '"system_fingerprint":"brim-8e2c5f3a1b77","choices":[{"index":0,"text":" a time","logprobs":null,'
    '"finish_reason":null}]}'
)

ENTRIES: Entries = {
    ("post", "/v1/chat/completions"): Entry(
        requests={
            "Ask": {"model": "demo", "messages": QUESTION, "max_tokens": 32},
            "Stream": {
                "messages": [{"role": "system", "content": "Answer in one word."}, *QUESTION],
                "max_completion_tokens": 32,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
            "Offer a tool": {
                "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
                "tools": [WEATHER],
                "tool_choice": "auto",
                "max_tokens": 64,
            },
            "Hold the answer to a schema": {
                "messages": [{"role": "user", "content": "Make up a person."}],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "person", "strict": True, "schema": _PERSON},
                },
                "max_tokens": 64,
            },
        },
        answers={
            200: {
                JSON: Body(
                    ChatCompletion,
                    {
                        **_ANSWER,
                        "object": "chat.completion",
                        "choices": [
                            {
                                "index": 0,
                                "message": {"content": "Paris.", "role": "assistant", "refusal": None},
                                "finish_reason": "stop",
                                "logprobs": None,
                            }
                        ],
                        "usage": _USAGE,
                    },
                ),
                SSE: events(_CHUNK),
            }
        },
        errors=(404, 429),
    ),
    ("post", "/v1/chat/completions/input_tokens"): Entry(
        requests={"Count": {"model": "demo", "messages": QUESTION}},
        answers={200: {JSON: like({"object": "response.input_tokens", "input_tokens": 15})}},
        errors=(404, 429),
    ),
    ("post", "/v1/completions"): Entry(
        requests={
            "Continue a text": {"model": "demo", "prompt": "Once upon", "max_tokens": 16},
            "Several prompts, as text and as tokens": {"prompt": ["One", [1, 2, 3]], "max_tokens": 4, "echo": True},
        },
        answers={
            200: {
                JSON: Body(
                    Completion,
                    {
                        **_ANSWER,
                        "id": "cmpl-4be1",
                        "object": "text_completion",
                        "choices": [{"text": " a time", "index": 0, "finish_reason": "length", "logprobs": None}],
                        "usage": _USAGE,
                    },
                ),
                SSE: events(_TEXT_CHUNK),
            }
        },
        errors=(404, 429),
    ),
    ("post", "/v1/embeddings"): Entry(
        requests={
            "Embed": {"model": "demo", "input": "Once upon a time"},
            "Several, short and compact": {"input": ["One", "Two"], "dimensions": 16, "encoding_format": "base64"},
        },
        answers={
            200: {
                JSON: Body(
                    EmbeddingList,
                    {
                        "data": [{"index": 0, "embedding": [0.3974, -0.6927], "object": "embedding"}],
                        "model": "demo",
                        "usage": {"prompt_tokens": 4, "total_tokens": 4},
                        "object": "list",
                    },
                )
            }
        },
        errors=(404, 429),
    ),
    ("post", "/v1/rerank"): Entry(
        requests={
            "Rank": {"query": "What is the capital of France?", "documents": ["Bread is baked.", "Paris."], "top_n": 1}
        },
        answers={
            200: {
                JSON: Body(
                    Ranking,
                    {
                        "model": "bge-reranker",
                        "results": [{"index": 1, "relevance_score": 4.2}],
                        "usage": {"prompt_tokens": 21, "total_tokens": 21},
                        "object": "list",
                    },
                )
            }
        },
        errors=(404, 429),
    ),
    ("get", "/v1/models"): Entry(answers={200: {JSON: Body(ModelList, {"object": "list", "data": [_MODEL]})}}),
    ("get", "/v1/models/{name}"): Entry(
        answers={200: {JSON: Body(ModelObject, _MODEL)}}, parameters={"name": "demo"}, errors=(404,)
    ),
}
