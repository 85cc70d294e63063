"""`brim serve` from its start to its end: what it refuses, what it says, how it obeys signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import CLIENT, ROOT, RunningServer, brim_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

LONG: dict[str, Any] = {
    "prompt": "Once upon a time",
    "max_tokens": 300,
    "ignore_eos": True,
    "temperature": 0,
    "stream": True,
}


def brim(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=brim_environment(home), capture_output=True, text=True, timeout=240, check=False
    )


def assert_fails_with_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


def write_broken_files(folder: Path, sound: Path) -> dict[str, Path]:
    content = sound.read_bytes()
    broken = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "text": b"This is no model.\n" * 100,
        "header-only": content[:100],
        "corrupt": content[:8] + b"\xff" * 16 + content[24:],
    }
    for name, data in broken.items():
        (folder / f"{name}.gguf").write_bytes(data)
    return {name: folder / f"{name}.gguf" for name in broken}


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "header-only", "corrupt"])
def test_a_file_that_is_no_sound_model_is_named_with_what_is_wrong(tmp_path: Path, demo_gguf: Path, kind: str) -> None:
    path = write_broken_files(tmp_path, demo_gguf)[kind]
    assert_fails_with_one_line(brim(tmp_path, "serve", path), str(path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], ["'absent'", "brim list"]),
        (["./absent.gguf"], ["absent.gguf", "does not exist"]),
        (["hf:owner"], ["hf:owner", "hf:OWNER/REPOSITORY"]),
        (["demo/checkpoint"], ["brim convert"]),
        (["--host", "0.0.0.0"], ["--api-key"]),
        (["--cache-ram", "lots"], ["cache-ram", "6GiB"]),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    assert_fails_with_one_line(brim(tmp_path, "serve", *arguments), *words)


@pytest.mark.parametrize("arguments", [["--port", "many"], ["--nonsense"]])
def test_wrong_usage_ends_with_status_2(tmp_path: Path, arguments: list[str]) -> None:
    assert brim(tmp_path, "serve", *arguments).returncode == 2


def test_a_taken_port_is_refused(tmp_path: Path, demo_gguf: Path, demo_server: RunningServer) -> None:
    port = demo_server.url.rsplit(":", 1)[1]
    assert_fails_with_one_line(brim(tmp_path, "serve", demo_gguf, "--port", port), port, "--port")


def test_it_says_where_the_model_lies_and_where_to_point_a_client(demo_server: RunningServer) -> None:
    said = demo_server.log.read_text()
    assert "demo: " in said
    assert f"{demo_server.url}/v1" in said
    assert f"{demo_server.url}/docs" in said


def test_what_lies_in_the_callers_folder_is_not_taken_for_brims_own(
    start_server: StartServer, demo_gguf: Path, tmp_path: Path
) -> None:
    for name in ("server.py", "converter.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('this is not brim')\n")
    server = start_server(demo_gguf, "--ctx", "512", folder=tmp_path)
    reply = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
    assert reply.status_code == 200, reply.text


def test_the_page_and_the_api_reference_are_served(demo_server: RunningServer) -> None:
    page = CLIENT.get(demo_server.url, headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/chat/completions" in page.text
    paths = demo_server.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health"} <= set(paths)


def test_until_the_model_is_loaded_health_is_503_with_a_reason(start_server: StartServer, demo_gguf: Path) -> None:
    server = start_server(demo_gguf, ready=False)
    seen: list[dict[str, Any]] = []
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            answer = server.get("/health")
        except httpx.TransportError:
            continue
        if answer.status_code == 200:
            break
        seen.append(answer.json())
    assert seen
    assert {status["status"] for status in seen} == {"loading"}
    assert {(model["model"], model["state"]) for status in seen for model in status["models"]} == {("demo", "loading")}
    progress = [model["progress"] for status in seen for model in status["models"]]
    assert progress == sorted(progress)
    assert server.signal_and_wait(signal.SIGINT) == 0


class Stream(threading.Thread):
    """Reads a long answer; `events` holds what came, up to an error or the end."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.events: list[Any] = []
        self._url = server.url
        self.start()

    def run(self) -> None:
        with CLIENT.stream("POST", f"{self._url}/v1/completions", json=LONG, timeout=240) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    self.events.append(data if data == "[DONE]" else json.loads(data))
                    self.begun.set()


def test_ctrl_c_ends_at_once_and_cleanly_even_amid_answers(start_server: StartServer, demo_gguf: Path) -> None:
    server = start_server(demo_gguf, "--ctx", "512")
    stream = Stream(server)
    assert stream.begun.wait(60)
    assert server.signal_and_wait(signal.SIGINT) == 0
    stream.join(10)
    assert stream.events[-1] != "[DONE]"
    assert stream.events[-1]["error"]["type"] == "server_error"
    assert "Traceback" not in server.log.read_text()
    assert "Error" not in server.log.read_text()


def test_sigterm_lets_running_requests_end_and_turns_new_ones_away(start_server: StartServer, demo_gguf: Path) -> None:
    server = start_server(demo_gguf, "--ctx", "512", "--grace", "200")
    stream = Stream(server)
    assert stream.begun.wait(60)
    server.process.send_signal(signal.SIGTERM)
    while server.get("/health").json()["status"] != "shutting down":
        time.sleep(0.01)
    refused = server.post("/v1/completions", {**LONG, "stream": False})
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    assert server.process.wait(240) == 0
    stream.join(10)
    assert stream.events[-1] == "[DONE]"
    assert stream.events[-2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_sigterm_does_not_wait_for_what_is_only_half_sent(
    start_server: StartServer, demo_gguf: Path, path: str
) -> None:
    server = start_server(demo_gguf, "--ctx", "512", "--grace", "200")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{{".encode())
        while "brim_http_requests_open 2" not in server.get("/metrics").text:  # this one, and the question itself
            time.sleep(0.01)
        assert server.signal_and_wait(signal.SIGTERM) == 0
        client.settimeout(10)
        head, body = client.makefile("rb").read().split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 503 ")
    error = json.loads(body)["error"]
    assert "shutting down" in error["message"]
    assert error["type"] == ("overloaded_error" if path == "/v1/messages" else "server_error")
    assert "Traceback" not in server.log.read_text()


def test_sigterm_does_not_wait_longer_than_its_grace(start_server: StartServer, demo_gguf: Path) -> None:
    server = start_server(demo_gguf, "--ctx", "512", "--grace", "0")
    stream = Stream(server)
    assert stream.begun.wait(60)
    assert server.signal_and_wait(signal.SIGTERM) == 0
    stream.join(10)
    assert "error" in stream.events[-1]
