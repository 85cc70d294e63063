"""docs/openai.md is true: it has every field of OpenAI's reference, and each one does what its row says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
ROW = re.compile(r"^\| `(\w+)` \| (honoured|accepted|refused)[^|]* \| `(.*)` \|$", re.MULTILINE)
ROWS = [(name, how, json.loads(value)) for name, how, value in ROW.findall(PAGE.read_text(encoding="utf-8"))]
NEEDED_BESIDE: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "parallel_tool_calls": {"tools": [{"type": "function", "function": {"name": "get_time"}}]},
}
TURN = {"role": "user", "content": "What is the capital of France?"}


def test_the_page_has_every_field_of_the_reference() -> None:
    documented = {name for name, _, _ in ROWS}
    assert documented == set(CompletionCreateParamsBase.__annotations__) | {"stream"}


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
