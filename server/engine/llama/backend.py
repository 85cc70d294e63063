"""llama.cpp in this process: its log, its devices, and why something could not be loaded."""

# pyright: basic

from __future__ import annotations

import ctypes
import re
import socket
import sys
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as ll
from llama_cpp._ggml import libggml

from server.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONNECT_SECONDS = 5.0
_BUFFER_SIZE = re.compile(r"(\S+)\s+(?:model|KV|RS|compute|output|LoRA) buffer size =\s*([\d.]+) MiB")
_WARNING, _ERROR, _CONTINUATION = 3, 4, 5  # ggml_log_level
_REASONS = 8
"""How many of the last errors may tell why something could not be loaded."""


class _Log:
    """Catches what llama.cpp prints: warnings go to stderr, buffer sizes are added up for each device."""

    def __init__(self) -> None:
        self.buffers: dict[str, float] = defaultdict(float)
        self.errors: deque[str] = deque(maxlen=_REASONS)
        self._level = 0
        self.callback = ll.llama_log_callback(self._receive)
        ll.llama_log_set(self.callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace")
        self._level = self._level if level == _CONTINUATION else level
        if found := _BUFFER_SIZE.search(line):
            self.buffers[found[1]] += float(found[2]) * 2**20
        if self._level == _ERROR:
            self.errors.append(line.strip())
        if self._level in (_WARNING, _ERROR):
            sys.stderr.write(line)


_log: _Log | None = None


def start_backend() -> None:
    """Initialise llama.cpp once in this process and take over its log."""
    global _log  # noqa: PLW0603 - llama.cpp's log is the process's own
    if _log is None:
        _log = _Log()
        ll.llama_backend_init()


def log_callback() -> Any:
    """What llama.cpp's libraries are to call with what they print. `start_backend` has been called."""
    assert _log
    return _log.callback


def device_bytes() -> dict[str, int]:
    """Bytes that the last loaded model and its contexts hold, by llama.cpp's name of the buffer's device."""
    assert _log
    return {name: round(size) for name, size in _log.buffers.items()}


def forget_device_bytes() -> None:
    """Begin to count `device_bytes` anew, as before a model is loaded."""
    assert _log
    _log.buffers.clear()


def load_error(what: str) -> LoadError:
    """The error for something that llama.cpp has just failed to load, with its reason."""
    assert _log
    reasons = list(_log.errors)
    text = " ".join(reasons).lower()
    out_of_memory = "out of memory" in text or "failed to allocate" in text or "unable to allocate" in text
    first = next((reason.splitlines()[0] for reason in reasons if reason), ": llama.cpp gave no reason")
    reason = first.split(": ", 1)[-1]
    return LoadError(f"{what}: {reason}", out_of_memory=out_of_memory)


def add_rpc_devices(endpoints: Sequence[str]) -> None:
    """Register the devices of RPC workers (HOST:PORT): in this order they are then called RPC0, RPC1 and so on.

    Raises:
        LoadError: nothing answers at an endpoint, or this build of llama.cpp cannot reach other machines.
    """
    for endpoint in endpoints:
        if not hasattr(libggml, "ggml_backend_rpc_add_server"):
            raise LoadError("this build of llama.cpp has no RPC; build it with GGML_RPC=ON")
        libggml.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
        libggml.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
        libggml.ggml_backend_register.restype = None
        libggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
        host, _, port = endpoint.rpartition(":")
        try:  # llama.cpp would end the process
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise LoadError(f"no RPC worker answers at {endpoint}; start one there with `brim rpc-worker`") from error
        registry = libggml.ggml_backend_rpc_add_server(endpoint.encode())
        if not registry:
            raise LoadError(f"the RPC worker at {endpoint} offers no devices")
        libggml.ggml_backend_register(registry)


def device_list(names: Sequence[str]) -> ctypes.Array[ctypes.c_void_p]:
    """The devices of these names, as the null-terminated array that llama.cpp wants. Raises LoadError."""
    libggml.ggml_backend_dev_by_name.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_by_name.argtypes = [ctypes.c_char_p]
    devices = []
    for name in names:
        device = libggml.ggml_backend_dev_by_name(name.encode())
        if not device:
            raise LoadError(f"there is no device {name}; `brim plan` lists the devices of this machine")
        devices.append(device)
    return (ctypes.c_void_p * (len(devices) + 1))(*devices, None)


def device_pointer(name: str) -> int:
    """A ggml device by its name. Raises LoadError where there is none."""
    return device_list([name])[0]
