"""Serves this machine's devices to others: `python -m server.offload.rpc_server ENDPOINT THREADS [DEVICE ...]`.

It imports little, so that what the process holds is what its clients asked for.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from server.offload.bindings import libggml
from server.offload.ggml import Ggml
from server.offload.switchboard import Switchboard

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_MMAP_THRESHOLD = 128 << 10
"""glibc's own default, in bytes."""


def main() -> None:
    """Serve until the process is ended."""
    (host, _, port), threads, names = sys.argv[1].rpartition(":"), int(sys.argv[2]), sys.argv[3:]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # llama.cpp prints who comes and goes to standard output
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ggml = Ggml(libggml)
    try:
        devices = chosen_devices(ggml, names)
    except LookupError as error:
        sys.exit(f"error: {error.args[0]}")
    give_memory_back()
    try:
        Switchboard(lambda endpoint: ggml.serve_rpc(endpoint, devices, threads)).run(host, int(port))
    except OSError as error:
        sys.exit(f"error: {host}:{port} cannot be listened on: {error.strerror}")


def chosen_devices(ggml: Ggml, names: list[str]) -> list[int]:
    """Handles of the devices called so; without names all GPUs, or the CPU where there is none.

    Raises:
        LookupError: there is no device of a name.
    """
    devices = {device.name: (handle, device.type) for handle, device in ggml.devices()}
    for name in names:
        if name not in devices:
            raise LookupError(f"there is no device {name}; the devices here are: {', '.join(devices)}")
    gpus = [handle for handle, kind in devices.values() if kind in ("gpu", "igpu")]
    return [devices[name][0] for name in names] or gpus or [devices["CPU"][0]]


def give_memory_back() -> None:
    """Have glibc return freed memory to the system at once.

    Left alone, it raises the threshold for that with every large block that passes through, as all weights do on their
    way in. Other C libraries have no such setting, and nothing is changed there.
    """
    c_library = ctypes.CDLL(None)
    if hasattr(c_library, "mallopt"):
        c_library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        c_library.mallopt(_M_ARENA_MAX, 1)


if __name__ == "__main__":
    main()
