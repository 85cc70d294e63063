"""docs/responses.md is true: it has every field of OpenAI's reference, and each one does what its row says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from server.api.openai.responses.request import ResponseRequest

PAGE = Path(__file__).parents[2] / "docs" / "responses.md"
ROW = re.compile(r"^\| `(\w+)` \| (honoured|accepted|refused)[^|]* \| `(.*)` \|$", re.MULTILINE)
ROWS = [(name, how, json.loads(value)) for name, how, value in ROW.findall(PAGE.read_text(encoding="utf-8"))]
ASK = {"input": "What is the capital of France?", "max_output_tokens": 8}


def ask(url: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/responses", json=ASK | more, timeout=60)


def test_the_page_has_every_field_of_the_reference_and_of_the_server() -> None:
    documented = [name for name, _, _ in ROWS]
    assert len(documented) == len(set(documented))
    assert set(ResponseCreateParamsBase.__annotations__) | {"stream"} <= set(documented)
    assert set(documented) == set(ResponseRequest.model_fields)


@pytest.mark.parametrize(("name", "how", "value"), ROWS, ids=[name for name, _, _ in ROWS])
def test_a_field_does_what_its_row_says(server_url: str, name: str, how: str, value: Any) -> None:
    if name == "previous_response_id":
        value = ask(server_url).json()["id"]
    reply = ask(server_url, **{name: value})
    if how == "refused":
        assert reply.status_code == 400
        assert reply.json()["error"]["param"].startswith(name)
    else:
        assert reply.status_code == 200, reply.text
        assert reply.json()["status"] in ("completed", "incomplete")
