"""What ggml and its accelerators show each other: the structures of ggml.h, ggml-impl.h and ggml-backend-impl.h."""

# pyright: basic

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any

from llama_cpp._ggml import libggml

API_VERSION = 2
"""GGML_BACKEND_API_VERSION in ggml-backend-impl.h: the structures are those of this version."""
F32 = 0  # ggml_type
COMPUTE = 16
"""GGML_TENSOR_FLAG_COMPUTE."""
SUCCESS, ALLOC_FAILED = 0, -2  # ggml_status
_OBJECT = 32
"""Bytes of a ggml_object, which a tensor takes in addition to its own."""

Pointer = ctypes.c_void_p


class Tensor(ctypes.Structure):
    """ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("buffer", Pointer),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int32),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", Pointer * 10),
        ("view_src", Pointer),
        ("view_offs", ctypes.c_size_t),
        ("data", Pointer),
        ("name", ctypes.c_char * 64),
        ("extra", Pointer),
        ("padding", ctypes.c_char * 8),
    )


class Graph(ctypes.Structure):
    """The beginning of ggml_cgraph."""

    _fields_ = (("size", ctypes.c_int32), ("n_nodes", ctypes.c_int32), ("n_leafs", ctypes.c_int32), ("nodes", Pointer))


def _pointers(names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, Pointer) for name in names.split())


class Backend(ctypes.Structure):
    """ggml_backend."""

    _fields_ = _pointers(
        "guid get_name free set_tensor_async get_tensor_async set_tensor_2d_async get_tensor_2d_async cpy_tensor_async "
        "synchronize graph_plan_create graph_plan_free graph_plan_update graph_plan_compute graph_compute event_record "
        "event_wait graph_optimize device context"
    )


class Device(ctypes.Structure):
    """ggml_backend_device."""

    _fields_ = _pointers(
        "get_name get_description get_memory get_type get_props init_backend get_buffer_type get_host_buffer_type "
        "buffer_from_host_ptr supports_op supports_buft offload_op event_new event_free event_synchronize reg context"
    )


class Registry(ctypes.Structure):
    """ggml_backend_reg."""

    _fields_ = (
        ("api_version", ctypes.c_int32),
        *_pointers("get_name get_device_count get_device get_proc_address context"),
    )


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml's, or of a library that it uses. Raises AttributeError."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, libggml))


def address(name: str) -> int:
    """Where a function of ggml's, or of a library that it uses, lies. Raises AttributeError."""
    return ctypes.cast(getattr(libggml, name), Pointer).value or 0


def operation(name: str) -> int:
    """An operation's number (ggml_op). Raises LookupError."""
    name_of = function("ggml_op_name", ctypes.c_char_p, ctypes.c_int32)
    return next(number for number in range(256) if name_of(number) == name.encode())


def offloads_batches(device: int) -> bool:
    """Whether a device takes large batches over from the CPU, weights and all (op_offload)."""
    return bool(Device.from_address(device).offload_op)


def offloaded_from() -> int:
    """The fewest columns that GPUs compute with weights in the host's memory, as their backends read it."""
    with contextlib.suppress(ValueError):
        return int(os.environ.get("GGML_OP_OFFLOAD_MIN_BATCH", ""))
    return 32


def fits(formats: dict[int, tuple[str, int, int]]) -> bool:
    """Whether the ggml in this process is laid out as said here.

    Args:
        formats: name, weights of a block and its bytes, for the numbers of formats.
    """
    overhead = function("ggml_tensor_overhead", ctypes.c_size_t)()
    name = function("ggml_type_name", ctypes.c_char_p, ctypes.c_int32)
    block = function("ggml_blck_size", ctypes.c_int64, ctypes.c_int32)
    size = function("ggml_type_size", ctypes.c_size_t, ctypes.c_int32)
    return (
        overhead == ctypes.sizeof(Tensor) + _OBJECT
        and all((name(n).decode(), block(n), size(n)) == expected for n, expected in formats.items())
        and _cpu_fits()
    )


def _cpu_fits() -> bool:
    """Whether ggml's own device of the CPU is laid out like that."""
    registry = function("ggml_backend_reg_by_name", Pointer, ctypes.c_char_p)(b"CPU")
    if not registry or Registry.from_address(registry).api_version != API_VERSION:
        return False
    device = function("ggml_backend_reg_dev_get", Pointer, Pointer, ctypes.c_size_t)(registry, 0)
    backend = function("ggml_backend_dev_init", Pointer, Pointer, ctypes.c_char_p)(device, None)
    same = Device.from_address(device).reg == registry and Backend.from_address(backend).device == device
    function("ggml_backend_free", None, Pointer)(backend)
    return same
