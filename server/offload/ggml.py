"""ggml's devices through ctypes: list them, add remote ones, serve them over RPC, time them.

Works on a library that is already loaded (see `server.offload.probe`), so nothing here imports llama_cpp.
Source of the signatures: ggml-backend.h, ggml-rpc.h and ggml.h of the pinned llama.cpp.
"""

from __future__ import annotations

import ctypes
import socket
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass

CONNECT_SECONDS = 5.0
DEVICE_TYPES = ("cpu", "gpu", "igpu", "accel", "meta")  # enum ggml_backend_dev_type


class _Capabilities(ctypes.Structure):
    _fields_ = (
        ("async_", c_bool),
        ("host_buffer", c_bool),
        ("buffer_from_host_ptr", c_bool),
        ("events", c_bool),
        ("mmap_support", c_bool),
    )


class DeviceProperties(ctypes.Structure):
    """ggml_backend_dev_props."""

    _fields_ = (
        ("name", c_char_p),
        ("description", c_char_p),
        ("memory_free", c_size_t),
        ("memory_total", c_size_t),
        ("type", c_int),
        ("device_id", c_char_p),
        ("capabilities", _Capabilities),
    )


class InitParams(ctypes.Structure):
    """ggml_init_params: how many bytes of tensor descriptions a ggml context holds, and whether it holds data."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


_SIGNATURES: dict[str, tuple[type | None, tuple[object, ...]]] = {
    "ggml_backend_dev_count": (c_size_t, ()),
    "ggml_backend_dev_get": (c_void_p, (c_size_t,)),
    "ggml_backend_dev_by_name": (c_void_p, (c_char_p,)),
    "ggml_backend_dev_get_props": (None, (c_void_p, POINTER(DeviceProperties))),
    "ggml_backend_dev_backend_reg": (c_void_p, (c_void_p,)),
    "ggml_backend_dev_buffer_type": (c_void_p, (c_void_p,)),
    "ggml_backend_dev_init": (c_void_p, (c_void_p, c_char_p)),
    "ggml_backend_reg_name": (c_char_p, (c_void_p,)),
    "ggml_backend_cpu_set_n_threads": (None, (c_void_p, c_int)),
    "ggml_backend_register": (None, (c_void_p,)),
    "ggml_backend_free": (None, (c_void_p,)),
    "ggml_backend_synchronize": (None, (c_void_p,)),
    "ggml_backend_graph_compute": (c_int, (c_void_p, c_void_p)),
    "ggml_backend_tensor_get": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_rms_norm": (c_void_p, (c_void_p, c_void_p, c_float)),
    "ggml_backend_alloc_ctx_tensors": (c_void_p, (c_void_p, c_void_p)),
    "ggml_backend_buffer_clear": (None, (c_void_p, ctypes.c_uint8)),
    "ggml_backend_buffer_free": (None, (c_void_p,)),
    "ggml_backend_tensor_set": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_init": (c_void_p, (InitParams,)),
    "ggml_free": (None, (c_void_p,)),
    "ggml_new_tensor_2d": (c_void_p, (c_void_p, c_int, c_int64, c_int64)),
    "ggml_new_tensor_3d": (c_void_p, (c_void_p, c_int, c_int64, c_int64, c_int64)),
    "ggml_flash_attn_ext": (c_void_p, (c_void_p,) * 5 + (c_float,) * 3),
    "ggml_backend_dev_supports_op": (c_bool, (c_void_p, c_void_p)),
    "ggml_mul_mat": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "ggml_new_graph": (c_void_p, (c_void_p,)),
    "ggml_build_forward_expand": (None, (c_void_p, c_void_p)),
    "ggml_nbytes": (c_size_t, (c_void_p,)),
    "ggml_backend_rpc_add_server": (c_void_p, (c_char_p,)),
    "ggml_backend_rpc_start_server": (None, (c_char_p, c_char_p, c_size_t, c_size_t, POINTER(c_void_p))),
}


@dataclass(frozen=True, slots=True)
class GgmlDevice:
    """A device as ggml describes it. Memory in bytes; `pci` is the lower-case PCI address where ggml knows one."""

    name: str
    description: str
    type: str
    backend: str
    total: int
    free: int
    pci: str | None


def check_answers(endpoint: str) -> None:
    """Make sure that something listens at HOST:PORT: llama.cpp ends the process where it cannot connect.

    Raises OSError where nothing does.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise OSError(f"no RPC worker answers at {endpoint}") from error


class Ggml:
    """The functions of a loaded ggml library, typed.

    Args:
        library: a handle through which libggml's symbols resolve, those of its backends included.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def call(self, name: str, *arguments: object) -> object:
        """Call a C function of `_SIGNATURES` by its name. Raises AttributeError where this build lacks it."""
        function = getattr(self._library, name)
        function.restype, function.argtypes = _SIGNATURES[name]
        return function(*arguments)

    def pointer(self, name: str, *arguments: object) -> int:
        """Call a function that returns a pointer. Raises OSError where it returns NULL."""
        address = self.call(name, *arguments)
        if not isinstance(address, int):
            raise OSError(f"{name} failed")
        return address

    def devices(self) -> list[tuple[int, GgmlDevice]]:
        """Every registered device's handle and description, in ggml's order. Raises OSError where a handle is NULL."""
        count = self.call("ggml_backend_dev_count")
        assert isinstance(count, int)
        handles = [self.pointer("ggml_backend_dev_get", i) for i in range(count)]
        return [(handle, self.describe(handle)) for handle in handles]

    def describe(self, handle: int) -> GgmlDevice:
        """Ask a device what it is and how much memory it has free."""
        properties = DeviceProperties()
        self.call("ggml_backend_dev_get_props", handle, ctypes.byref(properties))
        backend = self.call("ggml_backend_reg_name", self.call("ggml_backend_dev_backend_reg", handle))
        return GgmlDevice(
            name=properties.name.decode(),
            description=properties.description.decode("utf-8", "replace"),
            type=DEVICE_TYPES[int(properties.type)],
            backend=backend.decode() if isinstance(backend, bytes) else "",
            total=properties.memory_total,
            free=properties.memory_free,
            pci=properties.device_id.decode() if properties.device_id else None,
        )

    def add_rpc_server(self, endpoint: str) -> None:
        """Register the devices of an RPC worker; they are then called RPC0, RPC1 and so on.

        Raises OSError where nothing answers at `endpoint`.
        """
        check_answers(endpoint)
        registry = self.call("ggml_backend_rpc_add_server", endpoint.encode())
        if not registry:
            raise OSError(f"no RPC worker answers at {endpoint}")
        self.call("ggml_backend_register", registry)

    def serve_rpc(self, endpoint: str, devices: list[int], threads: int, cache: str | None = None) -> None:
        """Offer devices to other machines; returns only where the server cannot be started."""
        handles = (c_void_p * len(devices))(*devices)
        self.call(
            "ggml_backend_rpc_start_server",
            endpoint.encode(),
            cache.encode() if cache else None,
            threads,
            len(devices),
            handles,
        )

    def device_named(self, name: str) -> int:
        """The handle of a device. Raises OSError where there is none of that name."""
        return self.pointer("ggml_backend_dev_by_name", name.encode())

    def size(self, tensor: int) -> int:
        """A tensor's bytes."""
        size = self.call("ggml_nbytes", tensor)
        assert isinstance(size, int)
        return size

    def buffer_type(self, device: int) -> int:
        """The device's own buffer type."""
        return self.pointer("ggml_backend_dev_buffer_type", device)
