"""`brim rpc-worker`: lend this machine's devices to a brim elsewhere, over llama.cpp's RPC backend."""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from server.engine.cores import usable_cores
from server.engine.worker_process import THREADING


def rpc_worker(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 50052,
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device to offer, as ggml names it; may be repeated. Default: every GPU."),
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads, where the CPU is offered; 0: all cores.", min=0)] = 0,
) -> None:
    """Offer this machine's devices to `brim serve --rpc HOST:PORT` on another. The protocol knows no passwords."""
    console = Console(stderr=True)
    console.print(f"offering this machine's devices at {host}:{port}; Ctrl-C ends it", highlight=False)
    if not _is_loopback(host):
        console.print(
            "anyone who can reach this address can use this machine and read what is computed on it: "
            "keep it inside a private network, or listen on 127.0.0.1 and come in through an SSH tunnel",
            style="bold yellow",
        )
    sys.stderr.flush()
    arguments = [f"{host}:{port}", str(threads or usable_cores()), *(device or [])]
    command = [sys.executable, "-P", "-m", "server.offload.rpc_server", *arguments]
    os.execve(sys.executable, command, THREADING | os.environ)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
