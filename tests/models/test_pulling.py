"""Pulling models as users do it: by the protocols, by the command, by a client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import ollama
import pytest

from server.api.limits import Traffic
from server.app import create_app
from server.models.manager import ModelManager
from server.settings import Settings
from tests.conftest import ROOT, brim_environment
from tests.models.hub_server import FILE, NAME, FakeHub, files_in

if TYPE_CHECKING:
    from pathlib import Path

    from server.models.store import Store
    from tests.conftest import StartServer


@pytest.fixture
def client(store: Store, hub: FakeHub) -> httpx.AsyncClient:
    settings = Settings(cache_ram=0)
    app = create_app(settings, ModelManager(settings, store), Traffic())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")


async def test_ollamas_pull_fetches_with_progress(client: httpx.AsyncClient, store: Store, hub: FakeHub) -> None:
    name = f"hf.co/{NAME}:Q4_K_M"
    answer = await client.post("/api/pull", json={"model": name})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1] == {"status": "success"}
    digest = store.get(name).digest
    assert all(line["digest"] == digest and line["completed"] <= line["total"] for line in lines[1:-1])
    tags = (await client.get("/api/tags")).json()["models"]
    assert [model["name"] for model in tags] == [name]
    assert (await client.post("/api/show", json={"model": name})).status_code == 200
    assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
    again = await client.post("/api/pull", json={"model": name, "stream": False})
    assert again.json() == {"status": "success"}
    assert (await client.request("DELETE", "/api/delete", json={"model": name})).status_code == 200
    assert files_in(store.root) == set()


async def test_ollamas_pull_tells_what_is_wrong(client: httpx.AsyncClient, hub: FakeHub) -> None:
    for stream in (True, False):
        answer = await client.post("/api/pull", json={"model": "hf.co/maker/Absent", "stream": stream})
        assert answer.status_code == 404
        assert "there is no repository maker/Absent" in answer.json()["error"]
    answer = await client.post("/api/pull", json={"model": "hf:../../etc/passwd"})
    assert answer.status_code == 400
    hub.gated = {NAME}
    answer = await client.post("/api/pull", json={"model": f"hf.co/{NAME}"})
    assert "set HF_TOKEN" in json.loads(answer.text.splitlines()[-1])["error"]


async def test_other_requests_never_pull(client: httpx.AsyncClient, hub: FakeHub) -> None:
    body = {"model": f"hf.co/{NAME}", "messages": [{"role": "user", "content": "Hi"}]}
    assert (await client.post("/v1/chat/completions", json=body)).status_code == 404
    assert (await client.post("/api/chat", json=body)).status_code == 404
    made = await client.post("/api/create", json={"model": "mine", "from": f"hf.co/{NAME}"})
    assert made.status_code == 404
    assert hub.requests == []


def test_brim_pull_can_be_interrupted_and_resumed(hub: FakeHub, tmp_path: Path, tiny: bytes) -> None:
    hub.cut_after, hub.cuts = len(tiny) // 2, 10**6
    hub.ranges = False  # so it never comes to its end
    environment = brim_environment(tmp_path, HF_ENDPOINT=hub.url, NO_PROXY="127.0.0.1")
    command = [sys.executable, "-m", "server.cli", "pull", f"hf:{NAME}", "--quant", "Q4_K_M"]
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    while not hub.received:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"the next pull goes on" in errors
    assert files_in(tmp_path / "models") == set()
    hub.cuts, hub.ranges = 0, True
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"hf.co/{NAME}:Q4_K_M: llama, ")


@pytest.mark.slow
def test_brim_serve_pulls_and_answers(hub: FakeHub, start_server: StartServer) -> None:
    server = start_server(f"hf:{NAME}:Q4_K_M", "--ctx", "256", HF_ENDPOINT=hub.url, NO_PROXY="127.0.0.1")
    body = {"model": f"hf.co/{NAME}:Q4_K_M", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    assert server.post("/v1/chat/completions", body).json()["usage"]["completion_tokens"] > 0
    assert server.post("/v1/chat/completions", {**body, "model": f"hf:{NAME}:Q4_K_M"}).status_code == 200


@pytest.mark.slow
def test_brim_run_pulls_and_answers(hub: FakeHub, tmp_path: Path) -> None:
    settings = {"BRIM_THREADS": "1", "BRIM_CTX": "256", "BRIM_PORT": "9"}
    environment = brim_environment(
        tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path), NO_PROXY="127.0.0.1", **settings
    )
    options = ("--max-tokens", "4", "--temperature", "0")  # four tokens drawn at random may all be white space
    command = [sys.executable, "-m", "server.cli", "run", f"hf:{NAME}", "Once", *options]
    for _ in range(2):  # the second time it is there
        done = subprocess.run(
            command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    assert [path.rpartition("/")[2] for _, path, _ in hub.requests] == ["Tiny-GGUF", FILE]  # nothing else is told


@pytest.mark.slow
def test_ollamas_client_pulls_and_asks_and_a_pull_that_it_breaks_off_is_resumed(
    hub: FakeHub, start_server: StartServer, demo_gguf: Path, tiny: bytes
) -> None:
    server = start_server(demo_gguf, "--ctx", "256", HF_ENDPOINT=hub.url, NO_PROXY="127.0.0.1")
    client = ollama.Client(host=server.url, trust_env=False)
    name = f"hf.co/{NAME}:Q4_K_M"
    hub.pause = 0.05
    broken_off = client.pull(name, stream=True)
    assert any((news.completed or 0) > len(tiny) // 4 for news in broken_off)
    broken_off.close()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] -- it is a generator
    while "being fetched already" in (failure := pull_failure(client, name)):
        time.sleep(0.1)
    assert failure == ""
    assert int(hub.received[-1][1][6:-1]) > 0
    assert client.generate(name, "Hi", options={"num_predict": 4}).eval_count


def pull_failure(client: ollama.Client, name: str) -> str:
    """What keeps a pull from being done, if something does."""
    try:
        client.pull(name)
    except ollama.ResponseError as error:
        return error.error
    return ""
