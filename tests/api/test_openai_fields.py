"""docs/openai.md is true: it has every field of OpenAI's reference, and each one does what its row says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from server.api.absent import DEFAULT_SAMPLERS
from server.api.openai.chat_request import ChatRequest

PAGE = (Path(__file__).parents[2] / "docs" / "openai.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w`, ]+)` \| (honoured|accepted|refused)[^|]* \| `(.*)` \|$", re.MULTILINE)


def rows(text: str) -> list[tuple[str, str, Any]]:
    return [(name, how, json.loads(value)) for names, how, value in ROW.findall(text) for name in names.split("`, `")]


OPENAIS, FURTHER = (rows(part) for part in PAGE.split("## Beyond OpenAI's reference"))
ROWS = OPENAIS + FURTHER
NEEDED_BESIDE: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "parallel_tool_calls": {"tools": [{"type": "function", "function": {"name": "get_time"}}]},
}
TURN = {"role": "user", "content": "What is the capital of France?"}


def test_the_page_has_every_field_of_the_reference() -> None:
    documented = {name for name, _, _ in OPENAIS}
    assert documented == set(CompletionCreateParamsBase.__annotations__) | {"stream"}


def test_the_page_has_every_further_field() -> None:
    assert {name for name, _, _ in FURTHER} == set(ChatRequest.model_fields) - {name for name, _, _ in OPENAIS}


def test_the_same_fields_under_other_names(server_url: str) -> None:
    names = {"repetition_penalty": 1.0, "timings_per_token": True, "n_predict": 3, "top_k": 1}
    reply = httpx.post(f"{server_url}/v1/chat/completions", json={"messages": [TURN], "ignore_eos": True, **names})
    assert reply.json()["usage"]["completion_tokens"] == reply.json()["timings"]["predicted_n"] == 3
    limited = {"messages": [TURN], "json_schema": {"enum": ["red", "blue"]}, "max_tokens": -1}
    reply = httpx.post(f"{server_url}/v1/chat/completions", json=limited)
    assert json.loads(reply.json()["choices"][0]["message"]["content"]) in ("red", "blue")


def test_what_llama_servers_page_sends_with_every_request(server_url: str) -> None:
    sampling = {
        "temperature": 0.8,
        "dynatemp_range": 0,
        "dynatemp_exponent": 1,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
    }
    off = {"typical_p": 1, "xtc_probability": 0, "xtc_threshold": 0.1, "dry_multiplier": 0, "dry_base": 1.75}
    rest = {"samplers": DEFAULT_SAMPLERS, "timings_per_token": True, "return_progress": True, "max_tokens": -1}
    body = {"messages": [TURN], "stream": True, "cache_prompt": True, "reasoning_format": "auto"}
    reply = httpx.post(f"{server_url}/v1/chat/completions", json=body | sampling | off | rest, timeout=60)
    assert reply.status_code == 200, reply.text
    assert '"timings":' in reply.text


@pytest.mark.parametrize(("name", "how", "value"), ROWS, ids=[name for name, _, _ in ROWS])
def test_a_field_does_what_its_row_says(server_url: str, name: str, how: str, value: Any) -> None:
    body = {"messages": [TURN], "max_tokens": 8} | NEEDED_BESIDE.get(name, {}) | {name: value}
    reply = httpx.post(f"{server_url}/v1/chat/completions", json=body, timeout=60)
    if how == "refused":
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == name
    else:
        assert reply.status_code == 200, reply.text
        assert ('"choices":[{"index":0' in reply.text) or reply.json()["choices"]


def test_an_unknown_field_is_refused_by_name(server_url: str) -> None:
    reply = httpx.post(f"{server_url}/v1/chat/completions", json={"messages": [TURN], "temprature": 0})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "temprature")
