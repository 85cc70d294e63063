"""RPC workers and decoding processes for tests: real devices in processes of their own, on the CPU's backend."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from server.engine.worker_process import THREADING

if TYPE_CHECKING:
    from collections.abc import Generator

    from server.engine.load_spec import LoadSpec

SCRATCH = 4 << 20
"""Bytes that a worker on the CPU may hold beside what was asked of it: the room in which its backend converts inputs,
and its threads' own. It depends on how llama.cpp was compiled: none with one build, 2.3 to 3 MB with another."""
ROOT = Path(__file__).parents[2]


@dataclass
class RpcWorker:
    """A running worker."""

    endpoint: str
    process: psutil.Process

    @property
    def held(self) -> int:
        """Bytes of memory that it allocated; the pages of libraries, shared or not, are none of them."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        sizes = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        return (sizes["Anonymous:"] + sizes["Swap:"]) << 10


@contextlib.contextmanager
def rpc_worker(threads: int = 1) -> Generator[RpcWorker]:
    """Start a worker on a free loopback port and end it afterwards. It holds all that it allocates, used or not."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "server.offload.rpc_server", endpoint, str(threads)]
    touching = THREADING | os.environ | {"MALLOC_PERTURB_": "165"}  # glibc then writes to all memory that it hands out
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=touching)
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
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=THREADING | os.environ
    )
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
