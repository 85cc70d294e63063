"""`brim run`, `ps` and `stop`, with a server that runs and without one."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.conftest import ROOT, RunningServer, brim_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer


def brim(home: Path, *arguments: str | Path, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", *map(str, arguments)]
    environment = brim_environment(home, BRIM_THREADS="1", BRIM_CTX="256", **variables)
    return subprocess.run(
        command, cwd=ROOT, env=environment, input=typed, capture_output=True, text=True, timeout=280, check=False
    )


def port_of(server: RunningServer) -> str:
    return server.url.rsplit(":", 1)[1]


def test_run_starts_an_engine_of_its_own_where_no_server_has_the_model(
    tmp_path: Path, demo_gguf: Path, demo_server: RunningServer
) -> None:
    arguments = ("run", demo_gguf, "Once upon a time", "--raw", "--temperature", "0", "--max-tokens", "6")
    result = brim(tmp_path, *arguments, BRIM_PORT="9")
    assert result.returncode == 0, result.stderr
    body = {"prompt": "Once upon a time", "max_tokens": 6, "temperature": 0, "echo": True}
    assert result.stdout == demo_server.post("/v1/completions", body).json()["choices"][0]["text"] + "\n"


def test_run_asks_a_server_that_has_the_model(tmp_path: Path, demo_server: RunningServer) -> None:
    result = brim(
        tmp_path,
        *("run", "demo", "--temperature", "0", "--max-tokens", "6"),
        typed="What is the capital of France?",
        BRIM_PORT=port_of(demo_server),
    )
    assert result.returncode == 0, result.stderr
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"messages": messages, "max_tokens": 6, "temperature": 0}
    answer = demo_server.post("/v1/chat/completions", body).json()
    assert result.stdout == answer["choices"][0]["message"]["content"] + "\n"


def test_run_of_a_model_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    result = brim(tmp_path, "run", "absent", "Hello", BRIM_PORT="9")
    assert result.returncode == 1
    assert result.stderr.strip() == "Error: there is no model 'absent' in the store; `brim list` shows those there are"


def test_ps_lists_and_stop_ends_a_model(tmp_path: Path, start_server: StartServer, demo_gguf: Path) -> None:
    server = start_server(demo_gguf, "--ctx", "256", "--api-key", "secret")
    variables = {"BRIM_PORT": port_of(server), "BRIM_API_KEY": "secret"}
    listed = brim(tmp_path, "ps", **variables)
    assert listed.returncode == 0, listed.stderr
    assert "demo" in listed.stdout
    assert "ready" in listed.stdout
    assert "stays" in listed.stdout
    refused = brim(tmp_path, "ps", BRIM_PORT=port_of(server))
    assert refused.returncode == 1
    assert "API key" in refused.stderr
    assert brim(tmp_path, "stop", "demo", **variables).returncode == 0
    assert "No model is loaded" in brim(tmp_path, "ps", **variables).stdout
    again = brim(tmp_path, "stop", "demo", **variables)
    assert (again.returncode, again.stderr.strip()) == (1, "Error: the model 'demo' is not loaded")
    assert server.signal_and_wait(signal.SIGINT) == 0


def test_ps_without_a_server_says_so(tmp_path: Path) -> None:
    result = brim(tmp_path, "ps", BRIM_PORT="9")
    assert result.returncode == 1
    assert "`brim serve` starts one" in result.stderr
