"""docs/ollama.md is true: it has every field and option of Ollama's, and each one does what its row says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from ollama._types import ChatRequest as TheirChat
from ollama._types import GenerateRequest as TheirGenerate

from server.api.ollama.chat import ChatRequest
from server.api.ollama.generate import GenerateRequest
from server.api.ollama.options import Options

PAGE = (Path(__file__).parents[2] / "docs" / "ollama.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (honoured|accepted|refused)[^|]* \| `(.*)` \|$", re.MULTILINE)
SECTIONS = {
    title: [(name, how, json.loads(value)) for name, how, value in ROW.findall(text)]
    for title, text in re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", PAGE, re.MULTILINE)
}
ASK: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
    "generate": {"prompt": "What is the capital of France?"},
}
COMMON: dict[str, Any] = {"model": "demo", "stream": False, "options": {"num_predict": 8}}


@pytest.mark.parametrize(
    ("section", "ours", "theirs"),
    [
        ("POST /api/chat", ChatRequest, TheirChat),
        ("POST /api/generate", GenerateRequest, TheirGenerate),
        ("options", Options, ollama.Options),
    ],
)
def test_the_page_has_every_field_of_the_client_and_of_the_server(section: str, ours: Any, theirs: Any) -> None:
    documented = [name for name, _, _ in SECTIONS[section]]
    assert len(documented) == len(set(documented))
    assert set(theirs.model_fields) <= set(documented)
    assert set(documented) == set(ours.model_fields)


FIELDS = [
    (endpoint, name, how, value)
    for endpoint in ("chat", "generate")
    for name, how, value in SECTIONS[f"POST /api/{endpoint}"]
]


@pytest.mark.parametrize(("endpoint", "name", "how", "value"), FIELDS, ids=[f"{row[0]}-{row[1]}" for row in FIELDS])
def test_a_field_does_what_its_row_says(server_url: str, endpoint: str, name: str, how: str, value: Any) -> None:
    body = {**COMMON, **ASK[endpoint], name: value}
    check(httpx.post(f"{server_url}/api/{endpoint}", json=body, timeout=60), name, how)


@pytest.mark.parametrize(("name", "how", "value"), SECTIONS["options"], ids=[row[0] for row in SECTIONS["options"]])
def test_an_option_does_what_its_row_says(server_url: str, name: str, how: str, value: Any) -> None:
    body = {**COMMON, **ASK["chat"], "options": {"num_predict": 4, name: value}}
    check(httpx.post(f"{server_url}/api/chat", json=body, timeout=60), f"options.{name}", how)


def check(reply: httpx.Response, name: str, how: str) -> None:
    if how == "refused":
        assert reply.status_code == 400
        assert reply.json()["error"].startswith(f"'{name}")
    else:
        assert reply.status_code == 200, reply.text
        assert '"done":true' in reply.text
