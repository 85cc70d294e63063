"""docs/anthropic.md is true: it has every field of Anthropic's reference, and each one does what its row says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase

from server.api.anthropic.request import MessagesRequest

PAGE = Path(__file__).parents[2] / "docs" / "anthropic.md"
ROW = re.compile(r"^\| `(\w+)` \| (honoured|accepted|refused)[^|]* \| `(.*)` \|$", re.MULTILINE)
ROWS = [(name, how, json.loads(value)) for name, how, value in ROW.findall(PAGE.read_text(encoding="utf-8"))]
ASK: dict[str, Any] = {
    "model": "demo",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}


def test_the_page_has_every_field_of_the_reference_and_of_the_server() -> None:
    documented = [name for name, _, _ in ROWS]
    assert len(documented) == len(set(documented))
    assert set(MessageCreateParamsBase.__annotations__) | {"stream"} <= set(documented)
    assert set(documented) == set(MessagesRequest.model_fields)


@pytest.mark.parametrize(("name", "how", "value"), ROWS, ids=[name for name, _, _ in ROWS])
def test_a_field_does_what_its_row_says(server_url: str, name: str, how: str, value: Any) -> None:
    reply = httpx.post(f"{server_url}/v1/messages", json=ASK | {name: value}, timeout=60)
    if how == "refused":
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"].startswith(f"'{name}")
    else:
        assert reply.status_code == 200, reply.text
        assert reply.json()["type"] == "message"
