"""llama.cpp's threads, each bound to a CPU of its own.

They wait for each other at hundreds of barriers a step. Where there is one for every CPU and another program wants one
of these, the kernel moves them about: two of them often share a CPU, where each waits for the other, and steps take ten
times as long. Bound ones lose no more than what the other program takes.
"""

# pyright: basic

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import llama_cpp.llama_cpp as ll
from llama_cpp._ggml import libggml

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CPUS = 512
"""GGML_MAX_N_THREADS: CPUs with higher numbers cannot be named."""
_POLL = 50
"""How long idle threads look for work before they sleep, of 100; only in builds without OpenMP."""


class _Params(ctypes.Structure):
    """ggml_threadpool_params in ggml.h."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * MOST_CPUS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class BoundThreads:
    """A thread for each of some CPUs. The one that computes with them is the first, and stays bound afterwards.

    Args:
        cpus: their numbers, below `MOST_CPUS`.
    """

    def __init__(self, cpus: Sequence[int]) -> None:
        params = _Params(n_threads=len(cpus), poll=_POLL, strict_cpu=True)
        for cpu in cpus:
            params.cpumask[cpu] = True
        libggml.ggml_threadpool_new.restype = ctypes.c_void_p
        libggml.ggml_threadpool_new.argtypes = [ctypes.POINTER(_Params)]
        self._pointer = libggml.ggml_threadpool_new(ctypes.byref(params))

    def attach(self, context: ll.llama_context_p) -> None:
        """Have a context compute with them, which they must outlive."""
        attach = ll._lib.llama_attach_threadpool
        attach.restype = None
        attach.argtypes = [ctypes.c_void_p] * 3
        attach(context, self._pointer, self._pointer)

    def close(self) -> None:
        """Free them, once no context uses them."""
        libggml.ggml_threadpool_free.restype = None
        libggml.ggml_threadpool_free.argtypes = [ctypes.c_void_p]
        libggml.ggml_threadpool_free(self._pointer)


def can_bind(cpus: Sequence[int]) -> bool:
    """Whether this build of llama.cpp can bind threads to these CPUs."""
    return hasattr(libggml, "ggml_threadpool_new") and max(cpus) < MOST_CPUS
