"""Brings the kernels into this process, where llama.cpp finds them as a device like a BLAS."""

# pyright: basic

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING

import llama_cpp.llama_cpp as ll

from server.engine.kernels import ggml

if TYPE_CHECKING:
    from pathlib import Path

    from server.engine.kernels.compiled import MachineCode
    from server.engine.kernels.device import Limits
    from server.engine.kernels.dots import Dots

_ANY_NUMBER = 1 << 40
_NAME = b"kernels"
_OF_REGISTRY = ("get_device_count", "get_device", "get_proc_address")
_OF_DEVICE = (
    "get_memory", "get_type", "get_props", "init_backend", "get_buffer_type", "supports_op", "supports_buft"
)  # fmt: skip
_OF_BACKEND = ("graph_compute",)
_NAMES = ("get_registry_name", "get_device_name", "get_backend_name", "free_backend")

log = logging.getLogger("brim.kernels")


class Kernels:
    """The kernels of this process.

    Attributes:
        installed: whether llama.cpp uses them; that cannot be undone.
        device: what ggml knows of them. limits: which products that takes.
        instructions: what they multiply with. key: of all that their speed and their sums depend on.
    """

    def __init__(self, dots: Dots, code: MachineCode, limits: Limits) -> None:
        self.instructions = dots.name
        self.key = code.key
        self._code = code
        self.limits = limits
        self._guid = ctypes.create_string_buffer(b"products of brim", 16)
        context = ctypes.addressof(limits)
        self._registry = ggml.Registry(api_version=ggml.API_VERSION, context=context)
        self._registry.get_name = code["get_registry_name"]
        self.device = ggml.Device(reg=ctypes.addressof(self._registry), context=context)
        self.device.get_name = self.device.get_description = code["get_device_name"]
        limits.device = ctypes.addressof(self.device)
        backend = limits.backend
        backend.guid, backend.device = ctypes.addressof(self._guid), limits.device
        backend.get_name, backend.free = code["get_backend_name"], code["free_backend"]
        for struct, names in ((self._registry, _OF_REGISTRY), (self.device, _OF_DEVICE), (backend, _OF_BACKEND)):
            for name in names:
                setattr(struct, name, code[name])
        self.installed = False

    def install(self, *, beside_gpu: bool) -> None:
        """Have llama.cpp use them in all contexts that are made from now on in this process: the first call decides.

        Args:
            beside_gpu: whether they are to leave to a GPU the products that it takes over from the CPU.
        """
        if not self.installed:
            self.installed = True
            if beside_gpu:
                self.limits.most = ggml.offloaded_from() - 1
            ggml.function("ggml_backend_register", None, ctypes.c_void_p)(ctypes.addressof(self._registry))


_kernels: Kernels | None = None


def installed() -> Kernels | None:
    """The kernels, if llama.cpp uses them in this process."""
    return _kernels if _kernels and _kernels.installed else None


def prepare(folder: Path | None) -> Kernels | None:
    """Make the kernels of this process, once.

    Args:
        folder: where their machine code is remembered; None remembers nothing.

    Returns:
        The kernels, or None where llama.cpp has to do without: they are for CPUs and builds that they know.
    """
    global _kernels  # noqa: PLW0603 - ggml's list of devices is the process's own
    if _kernels is None:
        try:
            _kernels = _make(folder)
        except (ImportError, OSError, AttributeError, LookupError, RuntimeError) as error:
            log.info("llama.cpp computes all products: %s", error)
    return _kernels


def _make(folder: Path | None) -> Kernels:
    # not before they are wanted: LLVM is large, and there is none for some machines
    import llvmlite.binding as llvm

    from server.engine.kernels.compiled import MachineCode
    from server.engine.kernels.device import Limits
    from server.engine.kernels.dots import dots_of
    from server.engine.kernels.formats import FORMATS

    features = dict(llvm.get_host_cpu_features())
    dots = dots_of(features)
    if dots is None:
        raise RuntimeError("the kernels are for CPUs with AVX2")
    if b"AMX_INT8 = 1" in ll.llama_print_system_info():
        raise RuntimeError("llama.cpp has AMX here")
    if not ggml.fits({kind.number: (kind.name, kind.block, kind.size) for kind in FORMATS}):
        raise RuntimeError("the kernels are for another version of ggml")
    names = (*_NAMES, *_OF_REGISTRY, *_OF_DEVICE, *_OF_BACKEND)
    code = MachineCode(dots, features, names, folder)
    return Kernels(dots, code, Limits(name=_NAME, most=_ANY_NUMBER))
