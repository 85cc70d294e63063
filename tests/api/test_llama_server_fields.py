"""docs/llama-server.md is true: it has every field that /completion takes, and each one does what its row says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.api.llama_server.completion_request import CompletionRequest

if TYPE_CHECKING:
    from tests.conftest import RunningServer

PAGE = Path(__file__).parents[2] / "docs" / "llama-server.md"
ROW = re.compile(r"^\| `(\w+)` \| (honoured|accepted|refused)[^|]* \| `(.*)` \|$", re.MULTILINE)
ROWS = [(name, how, json.loads(value)) for name, how, value in ROW.findall(PAGE.read_text(encoding="utf-8"))]
OF_ONE_KIND = {"dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "mirostat_eta", "dynatemp_exponent"}
"""Fields that only go with others of the table."""


def test_the_page_has_every_field() -> None:
    assert {name for name, _, _ in ROWS} == set(CompletionRequest.model_fields) - OF_ONE_KIND - {"model"}


@pytest.mark.parametrize(("name", "how", "value"), ROWS, ids=[name for name, _, _ in ROWS])
def test_a_field_does_what_its_row_says(text_server: RunningServer, name: str, how: str, value: Any) -> None:
    reply = text_server.post("/completion", {"model": "demo", "prompt": "Once", "n_predict": 8, name: value})
    if how == "refused":
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == name
    else:
        assert reply.status_code == 200, reply.text
