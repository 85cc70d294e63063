"""Request ids, and what the log does and does not tell."""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from server import logs
from server.logs import JsonFormatter, TextFormatter
from tests.conftest import CLIENT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from tests.conftest import RunningServer, StartServer

CHAT = "/v1/chat/completions"
KEY = "sk-brim-0123456789-never-in-a-log"
WRONG_KEY = "sk-brim-wrong-but-not-for-a-log-either"
SECRET = "Zanzibar-Quagmire"
"""Stands in prompts, headers and queries of requests that go well and that go wrong."""


@pytest.mark.parametrize("given", ["abc", "a" * 128, "trace/1:2=3;x", "!~"])
async def test_a_sane_request_id_comes_back(client: httpx.AsyncClient, given: str) -> None:
    assert (await client.get("/v1/models", headers={"x-request-id": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", b"\xff", "tab\there"])
async def test_another_is_replaced(client: httpx.AsyncClient, given: str | bytes) -> None:
    answers = [await client.get("/v1/models", headers=[(b"x-request-id", as_bytes(given))]) for _ in range(2)]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert len({*made, given}) == 3
    assert all(len(number) == 32 for number in made)


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


async def test_every_refusal_has_an_id_also_a_500(
    make_client: Callable[..., httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.models.manager import ModelManager

    def broken(manager: ModelManager) -> Any:
        raise KeyError(SECRET)

    monkeypatch.setattr(ModelManager, "statuses", broken)
    client = make_client(api_key=("key",))
    friend = {"x-api-key": "key", "x-request-id": "mine", "Origin": "http://localhost:3000"}
    answers = [
        await client.get("/v1/models"),
        await client.get("/v1/models", headers={"Origin": "https://evil.example"}),
        await client.get("/nowhere", headers=friend),
        await client.post(CHAT, content="{", headers=friend),
        await client.get("/v1/models", headers=friend),
    ]
    assert [answer.status_code for answer in answers] == [401, 403, 404, 400, 500]
    assert all(answer.headers["x-request-id"] for answer in answers)
    assert [answer.headers["x-request-id"] for answer in answers[2:]] == ["mine"] * 3
    assert answers[-1].headers["access-control-allow-origin"] == "http://localhost:3000"  # a page may read it
    assert SECRET not in answers[-1].text


@pytest.fixture
def failure(monkeypatch: pytest.MonkeyPatch) -> logging.LogRecord:
    """The record of an error whose message repeats a secret, while a request is answered under --debug."""
    monkeypatch.setenv(logs.DEBUG_VARIABLE, "1")
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ValueError(SECRET) from error
    except ValueError:
        return logging.LogRecord("server.x", logging.ERROR, __file__, 1, "it %s", ("failed",), sys.exc_info())


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_a_traceback_tells_where_but_not_with_what(
    formatter: type[TextFormatter | JsonFormatter], failure: logging.LogRecord
) -> None:
    text = formatter(with_messages=False).format(failure)
    assert SECRET not in text
    assert "KeyError" in text
    assert "ValueError" in text
    assert "test_logs.py" in text
    assert SECRET in formatter(with_messages=True).format(failure)


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_without_debugging_there_is_no_traceback(
    formatter: type[TextFormatter | JsonFormatter], failure: logging.LogRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.DEBUG_VARIABLE, "")
    assert "test_logs.py" not in formatter(with_messages=True).format(failure)


def test_a_line_cannot_be_forged() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "%s", ("one\n12:00:00 ERROR two\x1b[2J\x9b",), None)
    assert TextFormatter(with_messages=False).format(record).count("\n") == 0
    assert "\x1b" not in TextFormatter(with_messages=False).format(record)


def test_json_lines_hold_the_request_they_tell_of() -> None:
    record = logging.LogRecord("server.x", logging.WARNING, "", 1, "it %s", ("rained",), None)
    token = logs.request_id.set("mine")
    try:
        entry = json.loads(JsonFormatter(with_messages=False).format(record))
    finally:
        logs.request_id.reset(token)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"level": "warning", "logger": "server.x", "message": "it rained", "request_id": "mine"}


def ask_in_every_way(server: RunningServer) -> None:
    """Requests with secrets in them, most of which go wrong somewhere."""
    message = {"role": "user", "content": SECRET}
    bodies: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {"messages": [message], "max_tokens": 4}),
        (CHAT, {"messages": [message], "max_tokens": 4, "stream": True}),
        (CHAT, {"messages": [message] * 500}),
        (CHAT, {"messages": [message], SECRET: 1}),
        (CHAT, {"messages": [{"role": SECRET, "content": SECRET}]}),
        ("/v1/completions", {"prompt": SECRET, "max_tokens": 4, "stop": [SECRET], "user": SECRET}),
        ("/v1/completions", {"prompt": SECRET, "max_tokens": 4, "logit_bias": {SECRET: 1}}),
    ]
    for path, body in bodies:
        CLIENT.post(f"{server.url}{path}", json=body, headers={"x-api-key": KEY, "x-request-id": "id-of-mine"})
    CLIENT.post(f"{server.url}{CHAT}", content=SECRET, headers={"Authorization": f"Bearer {KEY}"})
    CLIENT.post(f"{server.url}{CHAT}", json={}, headers={"Authorization": f"Bearer {WRONG_KEY}"})
    CLIENT.get(f"{server.url}/v1/models?key={KEY}&q={SECRET}", headers={"x-api-key": KEY, "Cookie": SECRET})


def test_keys_prompts_and_tokens_stay_out_of_the_whole_output_of_a_debugging_server(
    start_server: StartServer, demo_gguf: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}-2\n")
    server = start_server(
        demo_gguf, "--ctx", "512", "--debug", "--api-key", KEY, "--api-key-file", keys, BRIM_API_KEY=f"{KEY}-3"
    )
    ask_in_every_way(server)
    for worker in psutil.Process(server.process.pid).children(recursive=True):
        assert "BRIM_API_KEY" not in worker.environ()
    assert server.signal_and_wait(signal.SIGINT) == 0
    output = server.log.read_text()
    assert f"[id-of-mine] POST {CHAT} 200" in output  # it does log
    assert "GET /v1/models 200" in output
    for secret in (KEY, WRONG_KEY, SECRET, SECRET.split("-", maxsplit=1)[0], "0123456789-never"):
        assert secret not in output


def test_prompts_are_logged_if_asked_for_and_the_log_is_json_if_asked_for(
    start_server: StartServer, demo_gguf: Path
) -> None:
    server = start_server(demo_gguf, "--ctx", "512", "--log-prompts", "--log-json")
    ask_in_every_way(server)
    assert server.signal_and_wait(signal.SIGINT) == 0
    entries = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    prompts = [entry for entry in entries if SECRET in entry["message"]]
    assert prompts
    assert {entry["request_id"] for entry in prompts} == {"id-of-mine"}
