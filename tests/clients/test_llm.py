"""Simon Willison's `llm`, run as its users run it, with brim's models in extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # each run of the command takes some seconds to start

WITHIN = 200.0
GREEDY = ("-o", "temperature", "0")
FRANCE = "What is the capital of France?"
GET_WEATHER = """
def get_weather(city: str) -> str:
    "Get the weather of a city."
    return '{"temperature": 21, "condition": "sunny"}'
"""
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "means": {"enum": ["train", "bus"]}},
    "required": ["city", "means"],
    "additionalProperties": False,
}


@dataclass
class Llm:
    """The command `llm` of a user who has only brim's models. No key is set anywhere."""

    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LLM_"))}
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env={**kept, "LLM_USER_PATH": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )

    def answer(self, *arguments: str) -> str:
        """What a command that succeeds prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def llm(server_url: str, tmp_path: Path) -> Llm:
    shared = {"model_name": "demo", "api_base": f"{server_url}/v1"}
    can = {"supports_schema": True, "supports_tools": True}
    models = [
        {"model_id": "brim", **shared, **can, "vision": True},
        {"model_id": "brim-responses", **shared, **can, "responses": True},
        {"model_id": "brim-completions", **shared, "completion": True},
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # YAML holds JSON
    return Llm(tmp_path)


def test_an_answer_is_the_same_streamed_or_not_and_its_tokens_are_counted(llm: Llm) -> None:
    streamed = llm.answer("-m", "brim", FRANCE, *GREEDY)
    whole = llm.answer("-m", "brim", FRANCE, *GREEDY, "--no-stream")
    assert "Paris" in streamed
    assert streamed == whole
    kept: list[dict[str, Any]] = json.loads(llm.answer("logs", "-n", "2", "--json"))
    assert [one["response"] for one in kept] == [streamed, whole]
    assert all(one["input_tokens"] > 0 for one in kept)
    assert kept[0]["output_tokens"] == kept[1]["output_tokens"] > 0


def test_a_conversation_goes_on(llm: Llm) -> None:
    assert "Paris" in llm.answer("-m", "brim", FRANCE, *GREEDY, "-s", "You are a helpful assistant.")
    assert "Rome" in llm.answer("-c", "And what is the capital of Italy?", *GREEDY)


@pytest.mark.parametrize("model", ["brim", "brim-responses"])
def test_an_answer_fits_the_schema(llm: Llm, model: str) -> None:
    answer = json.loads(llm.answer("-m", model, "Plan a trip to Paris.", "--schema", json.dumps(SCHEMA)))
    assert answer.keys() == {"city", "means"}
    assert len(answer["city"]) <= 12
    assert answer["means"] in ("train", "bus")


@pytest.mark.parametrize(("model", "more"), [("brim", ()), ("brim", ("--no-stream",)), ("brim-responses", ())])
def test_a_python_function_is_called_and_its_result_told(llm: Llm, model: str, more: tuple[str, ...]) -> None:
    done = llm.run(
        "-m", model, "What is the weather in Paris?", "--functions", GET_WEATHER, "--tools-debug", *GREEDY, *more
    )
    assert done.returncode == 0, done.stderr
    assert "get_weather({'city': 'Paris'})" in done.stderr
    assert "21" in done.stdout


def test_a_text_is_completed(llm: Llm) -> None:
    assert llm.answer("-m", "brim-completions", "Once upon a time", *GREEDY, "-o", "max_tokens", "8")


def test_a_refusal_is_told(llm: Llm, tmp_path: Path) -> None:
    image = tmp_path / "dot.gif"
    image.write_bytes(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;")
    done = llm.run("-m", "brim", "What is this?", "--attachment-type", str(image), "image/gif")
    assert done.returncode == 1
    assert "vision" in done.stderr
