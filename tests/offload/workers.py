"""RPC workers and decoding processes for tests: real devices in processes of their own, on the CPU's backend."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

if TYPE_CHECKING:
    from collections.abc import Generator

    from server.engine.messages import LoadSpec

ROOT = Path(__file__).parents[2]


@dataclass
class RpcWorker:
    """A running worker."""

    endpoint: str
    process: psutil.Process

    @property
    def held(self) -> int:
        """Bytes of memory that are its own: not shared with other processes, as libraries are."""
        return self.process.memory_full_info().uss


@contextlib.contextmanager
def rpc_worker(threads: int = 1) -> Generator[RpcWorker]:
    """Start a worker on a free loopback port and end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "server.offload.probe", "rpc-worker", endpoint, str(threads)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield RpcWorker(endpoint, psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the RPC worker ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError("the RPC worker does not listen")


@contextlib.contextmanager
def decoding(spec: LoadSpec, tokens: int = 24, *, full_context: bool = False) -> Generator[dict[str, Any]]:
    """Load and decode in a process of its own; the model stays loaded inside the block."""
    command = [sys.executable, "-m", "tests.offload.decoding"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    request = {"spec": msgspec.to_builtins(spec), "tokens": tokens, "full_context": full_context}
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    try:
        line = process.stdout.readline()
        assert line, "the decoding process failed"
        yield json.loads(line)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
