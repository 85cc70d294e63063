"""`brim rpc-worker` as a user starts it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from server.offload.devices import discover
from tests.offload.workers import ROOT

COMMAND = "from server.offload.cli import app; app()"


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_lends_the_cpu_where_there_is_no_gpu_and_warns_beyond_loopback(host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", COMMAND, "rpc-worker", "--host", host, "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        endpoint = f"127.0.0.1:{port}"
        found = discover((endpoint,))
        for _ in range(60):
            if found.devices:
                break
            time.sleep(0.5)
            found = discover((endpoint,))
        assert [(device.name, device.backend) for device in found.devices] == [("RPC0", "RPC")]
        assert found.rpc == (endpoint,)
    finally:
        process.kill()
        _, said = process.communicate()
    assert f"{host}:{port}" in said
    assert ("anyone who can reach this address" in " ".join(said.split())) is (host == "0.0.0.0")
