"""Times one device: matrix-vector products as in decoding, a wider product as in prefill, a bare call, a copy."""

from __future__ import annotations

import contextlib
import ctypes
import time
from typing import TYPE_CHECKING

from server.offload.ggml import Ggml, InitParams
from server.offload.nvml import used_by_this_process
from server.offload.questions import DeviceSpeed

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

GGML_TYPES = {"f16": 1, "q8_0": 8, "q4_K": 12}
F32 = 0
COLUMNS = 4096
ROWS = 4096
MATRICES = 6
"""Several matrices in turn, so that no cache holds the one that comes next."""
PREFILL_TOKENS = 128
HEAD, HEADS, KV_HEADS, DEPTH = 128, 32, 8, 4096
"""Attention as in an 8B model, 4,096 tokens into a sequence."""
ATTENTION_LAYERS = 3
INPUTS = 6
"""Small tensors that a stretch of layers is given for each token: hidden state, positions, mask, places of its KV."""
OPERATIONS = 100
"""In a chain of small ones, which shows what each costs beside its arithmetic: threads' barrier, a kernel's start."""
SECONDS = 0.15
"""Least time to repeat each measurement for; the fastest repetition counts, since others only disturb."""
CONTEXT_BYTES = 1 << 20


def measure(ggml: Ggml, name: str, threads: int = 0) -> DeviceSpeed:
    """Time a device by its ggml name.

    Args:
        threads: CPU threads to use on the host; 0 leaves ggml's default.

    Raises:
        OSError: the device failed.
    """
    device = ggml.device_named(name)
    pci = ggml.describe(device).pci
    before = used_by_this_process(pci)
    backend = ggml.pointer("ggml_backend_dev_init", device, None)
    if threads and name == "CPU":
        ggml.call("ggml_backend_cpu_set_n_threads", backend, threads)
    bandwidth: dict[str, float] = {}
    for label, number in GGML_TYPES.items():
        with _products(ggml, backend, number, ROWS, 1, MATRICES) as (graph, nbytes, _, last):
            bandwidth[label] = nbytes / _fastest(ggml, backend, graph, last)
    attention = _attention(ggml, device, backend)
    with _products(ggml, backend, GGML_TYPES["q4_K"], 256, 1, 1) as (graph, _, matrix, last):
        call = _fastest(ggml, backend, graph, last, [matrix] * INPUTS)
    operation = max(0.0, _chain(ggml, backend) - call) / OPERATIONS
    with _products(ggml, backend, GGML_TYPES["q4_K"], ROWS, PREFILL_TOKENS, 1) as (graph, nbytes, matrix, last):
        seconds = _fastest(ggml, backend, graph, last)
        link = _link(ggml, matrix, nbytes)
        after = used_by_this_process(pci)
    ggml.call("ggml_backend_free", backend)
    return DeviceSpeed(
        name=name,
        bandwidth=bandwidth,
        attention=attention,
        prefill=2 * ROWS * COLUMNS * PREFILL_TOKENS / seconds,
        call=call,
        operation=operation,
        link=link,
        overhead=None if before is None or after is None else max(0, after - before - nbytes),
    )


@contextlib.contextmanager
def _graph(ggml: Ggml) -> Generator[tuple[int, int]]:
    """An empty ggml context and a graph in it."""
    context = ggml.pointer("ggml_init", InitParams(CONTEXT_BYTES, None, True))
    try:
        yield context, ggml.pointer("ggml_new_graph", context)
    finally:
        ggml.call("ggml_free", context)


@contextlib.contextmanager
def _allocated(ggml: Ggml, context: int, backend: int) -> Generator[None]:
    """Memory on the device for a context's tensors, set to zero."""
    buffer = ggml.pointer("ggml_backend_alloc_ctx_tensors", context, backend)
    ggml.call("ggml_backend_buffer_clear", buffer, 0)
    try:
        yield
    finally:
        ggml.call("ggml_backend_buffer_free", buffer)


@contextlib.contextmanager
def _products(
    ggml: Ggml, backend: int, matrix_type: int, rows: int, tokens: int, matrices: int
) -> Generator[tuple[int, int, int, int]]:
    """A graph of independent products on a device; gives it, the weights' bytes, the last matrix and its product."""
    with _graph(ggml) as (context, graph):
        nbytes = matrix = product = 0
        for _ in range(matrices):
            matrix = ggml.pointer("ggml_new_tensor_2d", context, matrix_type, COLUMNS, rows)
            vector = ggml.pointer("ggml_new_tensor_2d", context, F32, COLUMNS, tokens)
            product = ggml.pointer("ggml_mul_mat", context, matrix, vector)
            ggml.call("ggml_build_forward_expand", graph, product)
            nbytes += ggml.size(matrix)
        with _allocated(ggml, context, backend):
            yield graph, nbytes, matrix, product


def _attention(ggml: Ggml, device: int, backend: int) -> float:
    """Bytes of F16 keys and values that attention reads a second; 0 where the device has no flash attention."""
    with _graph(ggml) as (context, graph):
        nbytes = out = 0
        for _ in range(ATTENTION_LAYERS):
            queries = ggml.pointer("ggml_new_tensor_3d", context, F32, HEAD, 1, HEADS)
            keys = ggml.pointer("ggml_new_tensor_3d", context, GGML_TYPES["f16"], HEAD, DEPTH, KV_HEADS)
            values = ggml.pointer("ggml_new_tensor_3d", context, GGML_TYPES["f16"], HEAD, DEPTH, KV_HEADS)
            scale = HEAD**-0.5
            out = ggml.pointer("ggml_flash_attn_ext", context, queries, keys, values, None, scale, 0.0, 0.0)
            if not ggml.call("ggml_backend_dev_supports_op", device, out):
                return 0.0
            ggml.call("ggml_build_forward_expand", graph, out)
            nbytes += ggml.size(keys) + ggml.size(values)
        with _allocated(ggml, context, backend):
            return nbytes / _fastest(ggml, backend, graph, out)


def _chain(ggml: Ggml, backend: int) -> float:
    """Seconds for a chain of small operations."""
    with _graph(ggml) as (context, graph):
        last = ggml.pointer("ggml_new_tensor_2d", context, F32, COLUMNS, 1)
        for _ in range(OPERATIONS):
            last = ggml.pointer("ggml_rms_norm", context, last, 1e-5)
        ggml.call("ggml_build_forward_expand", graph, last)
        with _allocated(ggml, context, backend):
            return _fastest(ggml, backend, graph, last)


def _fastest(ggml: Ggml, backend: int, graph: int, last: int, inputs: Sequence[int] = ()) -> float:
    """Seconds of the fastest computation of a graph, after a little is written to each of `inputs`.

    The result is read each time from its `last` tensor: only that waits for a remote device, which computes behind.
    """
    result = ctypes.create_string_buffer(4)
    given = ctypes.create_string_buffer(1 << 10)
    best = float("inf")
    end = time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        for tensor in inputs:
            ggml.call("ggml_backend_tensor_set", tensor, given, 0, len(given))
        if ggml.call("ggml_backend_graph_compute", backend, graph) != 0:
            raise OSError("the device failed while it was measured")
        ggml.call("ggml_backend_synchronize", backend)
        ggml.call("ggml_backend_tensor_get", last, result, 0, len(result))
        best = min(best, time.perf_counter() - start)
    return best


def _link(ggml: Ggml, tensor: int, nbytes: int) -> float:
    """Bytes a second from the host into a tensor on the device."""
    data, first = ctypes.create_string_buffer(nbytes), ctypes.create_string_buffer(4)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        ggml.call("ggml_backend_tensor_set", tensor, data, 0, nbytes)
        ggml.call("ggml_backend_tensor_get", tensor, first, 0, len(first))
        best = min(best, time.perf_counter() - start)
    return nbytes / best
