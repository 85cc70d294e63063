"""Starting and stopping the servers that are compared, each on the same model with the same room for context."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.peers import EXAMPLE_SERVER, LLAMA_SERVER

START_LIMIT = 180.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What every server is started with.

    Attributes:
        model: the GGUF file. context: tokens of one request. parallel: requests side by side. threads: CPU threads.
        folder: where caches on disk may lie; they outlive a server.
    """

    model: Path
    context: int
    parallel: int
    threads: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        log: what it prints.
    """

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path


Command = Callable[[Setup, int], list[str]]


def brim(*options: str) -> Command:
    """brim, with more options."""

    def command(setup: Setup, port: int) -> list[str]:
        sizes = ["--ctx", str(setup.context), "--parallel", str(setup.parallel), "--threads", str(setup.threads)]
        program = str(Path(sys.executable).parent / "brim")
        return [program, "serve", str(setup.model), "--port", str(port), *sizes, *options]

    return command


def brim_with_disk(setup: Setup, port: int) -> list[str]:
    """Brim with its disk tier."""
    return brim("--cache-disk", "8GiB")(setup, port)


def llama_server(setup: Setup, port: int) -> list[str]:
    """llama.cpp's server with a slot for each parallel request."""
    sizes = ["-c", str(setup.context * setup.parallel), "-np", str(setup.parallel), "-t", str(setup.threads)]
    return [str(LLAMA_SERVER), "-m", str(setup.model), "--port", str(port), "--host", "127.0.0.1", *sizes]


def example_server(setup: Setup, port: int) -> list[str]:
    """llama-cpp-python's batching server, as its own configurations have it, with its cache on disk."""
    config = {
        "server": {"host": "127.0.0.1", "port": port},
        "model": {
            "alias": "m",
            "path": str(setup.model),
            "n_ctx": setup.context * setup.parallel,
            "n_seq_max": 2 * setup.parallel,
            "n_batch": 512,
            "n_ubatch": 512,
            "threads": setup.threads,
            "threads_batch": setup.threads,
            "kv_unified": True,
        },
        "disk_cache": {"path": str(setup.folder / "example-cache"), "max_bytes": 8 << 30, "min_tokens": 128},
    }
    path = setup.folder / f"example-{port}.json"
    path.write_text(json.dumps(config))
    return [sys.executable, str(EXAMPLE_SERVER), "-C", str(path)]


SERVERS: dict[str, Command] = {
    "brim": brim(),
    "brim without lookup": brim("--no-lookup"),
    "brim with disk tier": brim_with_disk,
    "llama-server": llama_server,
    "example server": example_server,
}


@contextlib.contextmanager
def running(name: str, setup: Setup) -> Generator[Server]:
    """Start a server and wait until it answers a request; stop it at the end as a user would, with SIGINT."""
    port = _free_port()
    log = setup.folder / f"{name.replace(' ', '-')}.log"
    environment = os.environ | {"BRIM_HOME": str(setup.folder / "brim-home"), "BRIM_CACHE_DIR": str(setup.folder)}
    with log.open("ab") as output:
        command = SERVERS[name](setup, port)
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    server = Server(name, f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(server)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def workspace() -> Generator[Path]:
    """A folder for caches and logs."""
    with tempfile.TemporaryDirectory(prefix="brim-bench-") as folder:
        yield Path(folder)


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"{server.name} ended at once: {server.log.read_text()[-2000:]}")
        body = {"model": model_name(server), "prompt": "a", "max_tokens": 1}
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"{server.name} does not answer: {server.log.read_text()[-2000:]}")


def model_name(server: Server) -> str:
    """The name a server wants for its model, or its alias before it answers."""
    with contextlib.suppress(httpx.HTTPError, KeyError, IndexError, ValueError):
        return httpx.get(f"{server.url}/v1/models", timeout=5).json()["data"][0]["id"]
    return "m"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
