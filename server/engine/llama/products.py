"""Which of the CPU's products compute a batch: llama.cpp's tiled ones, or the plain ones.

For K- and I-quants, llama.cpp takes tiled products from 8 rows on (ggml-cpu/tiled/tiled.cpp). These unpack weights
before they multiply, which pays for some 20 rows and more; of fewer, the plain products take as little as 7/8 of the
time. A CPU backend does without the tiled ones while told to use its reference paths, which is not felt elsewhere.
"""

# pyright: basic

from __future__ import annotations

import ctypes

import llama_cpp.llama_cpp as ll
from llama_cpp._ggml import libggml

TILED_FROM = 8
"""Rows from which on llama.cpp takes tiled products, if left to itself."""
_SCHEDULER = "_ZNK13llama_context9get_schedEv"
"""llama_context::get_sched() const: no function of llama.h leads to a context's backends."""
_FUNCTIONS = ("ggml_backend_sched_get_n_backends", "ggml_backend_sched_get_backend", "ggml_backend_is_cpu")
_SWITCH = "ggml_backend_cpu_set_use_ref"


class Products:
    """The choice for one context, which must outlive it.

    Attributes:
        can_choose: whether this build of llama.cpp lets it be made.
    """

    def __init__(self, context: ll.llama_context_p) -> None:
        self._backends = _cpu_backends(context)
        self.can_choose = bool(self._backends)
        self._plain = False

    def use(self, *, plain: bool) -> None:
        """Have the next batches computed by the plain products, or as llama.cpp chooses."""
        if plain != self._plain:
            self._plain = plain
            for backend in self._backends:
                libggml.ggml_backend_cpu_set_use_ref(backend, plain)


def _cpu_backends(context: ll.llama_context_p) -> list[int]:
    if not hasattr(ll._lib, _SCHEDULER) or not all(hasattr(libggml, name) for name in (*_FUNCTIONS, _SWITCH)):
        return []
    get_scheduler = getattr(ll._lib, _SCHEDULER)
    get_scheduler.restype, get_scheduler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    count, get, is_cpu = (getattr(libggml, name) for name in _FUNCTIONS)
    count.restype, count.argtypes = ctypes.c_int, [ctypes.c_void_p]
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]
    is_cpu.restype, is_cpu.argtypes = ctypes.c_bool, [ctypes.c_void_p]
    libggml.ggml_backend_cpu_set_use_ref.restype = None
    libggml.ggml_backend_cpu_set_use_ref.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    scheduler = get_scheduler(context)
    backends = [get(scheduler, number) for number in range(count(scheduler))]
    return [backend for backend in backends if is_cpu(backend)]
