"""What tests of the whole path share: the demo model as a file, and real servers started as a user starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx
import hypothesis
import pytest
from openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Iterator

# a shell that runs the tests in the background has SIGINT ignored, and whatever they start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("brim", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("brim")

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "demo" / "checkpoint"
CLIENT = httpx.Client(trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
START_WITHIN = 240.0
END_WITHIN = 60.0
FILL_TOKENS = {"pre": 2040, "suf": 2041, "mid": 2042}
CONTROL_TOKEN = 3
"""GGUF's token type."""


@dataclass
class RunningServer:
    """A `brim serve` process. `log` holds what it wrote to stdout and stderr."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> httpx.Response:
        return CLIENT.get(f"{self.url}{path}", timeout=60)

    def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
        return CLIENT.post(f"{self.url}{path}", json=body, headers=headers, timeout=120)

    def gauge(self, name: str) -> float:
        """A figure of the one worker's. A very busy worker may not answer in time and is asked again."""
        for _ in range(20):
            for line in self.get("/metrics").text.splitlines():
                if line.startswith(f"{name}{{"):
                    return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no figure {name}")

    def signal_and_wait(self, number: int) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_WITHIN)


class StartServer(Protocol):
    """Starts `brim serve ARGS` in a folder and waits until /health is 200, unless told not to."""

    def __call__(
        self, *arguments: str | Path, ready: bool = True, folder: Path = ROOT, **variables: str
    ) -> RunningServer: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def brim_environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment for a brim process of a test: a store of its own, and no settings of the user's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIM_")}
    return {**inherited, "BRIM_HOME": str(home), "XDG_CONFIG_HOME": str(home), **variables}


@pytest.fixture(scope="session")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled demo model, converted to F16."""
    from converter.convert import convert

    if not (CHECKPOINT / "model.safetensors").exists():
        pytest.skip("the demo checkpoint is not there")
    target = tmp_path_factory.mktemp("gguf") / "demo.gguf"
    convert(CHECKPOINT, target, "F16")
    return target


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """A factory of servers; those that still run are ended after the last test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path, ready: bool = True, folder: Path = ROOT, **variables: str) -> RunningServer:
        home = tmp_path_factory.mktemp("home")
        port = free_port()
        log = home / "log"
        environment = brim_environment(home, **{"BRIM_THREADS": "1", "BRIM_CACHE_RAM": "64MiB", **variables})
        command = [sys.executable, "-P", "-m", "server.cli", "serve", *map(str, arguments), "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        started.append(process)
        server = RunningServer(f"http://127.0.0.1:{port}", process, log)
        if ready:
            wait_until_healthy(server)
        return server

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in started:
        try:
            process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_healthy(server: RunningServer) -> None:
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if server.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the server was not ready in time: {server.log.read_text()}")


@pytest.fixture(scope="session")
def demo_server(start_server: StartServer, demo_gguf: Path) -> RunningServer:
    """A server with the demo model, shared by the tests that leave it as it was."""
    return start_server(demo_gguf, "--ctx", "512", "--parallel", "4")


@pytest.fixture(scope="session")
def filler_gguf(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with three tokens of its vocabulary declared to be fill-in-the-middle markers."""
    from converter.gguf_format import Field, ValueType, encode_header
    from converter.gguf_info import read_gguf_info

    info = read_gguf_info(demo_gguf)
    marks = {f"tokenizer.ggml.fim_{mark}_token_id": Field.u32(token) for mark, token in FILL_TOKENS.items()}
    kinds = list(info.fields["tokenizer.ggml.token_type"].value)
    for token in FILL_TOKENS.values():
        kinds[token] = CONTROL_TOKEN
    marks["tokenizer.ggml.token_type"] = Field.array(ValueType.INT32, kinds)
    header = encode_header({**info.fields, **marks}, info.tensors)
    target = tmp_path_factory.mktemp("gguf") / "filler.gguf"
    target.write_bytes(header + demo_gguf.read_bytes()[info.data_start :])
    return target


@pytest.fixture(scope="session")
def text_server(
    start_server: StartServer, demo_gguf: Path, filler_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    """A server with models of all kinds: `demo`, `filler`, and the random `encoder` and `reranker`."""
    from tests.reference.random_bert import Bert

    folder = tmp_path_factory.mktemp("gguf")
    encoder = Bert("mean").write(folder / "encoder.gguf")
    reranker = Bert("rank").write(folder / "reranker.gguf")
    return start_server(demo_gguf, filler_gguf, encoder, reranker, "--ctx", "512", "--parallel", "4")


@pytest.fixture(scope="session")
def server_url(demo_server: RunningServer) -> str:
    """Where the shared server answers."""
    return demo_server.url


@pytest.fixture(scope="session")
def openai_client(server_url: str) -> OpenAI:
    """OpenAI's own client, pointed at the shared server."""
    return OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0, timeout=120)
