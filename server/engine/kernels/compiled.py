"""The machine code of the device in this process: compiled once for a CPU, and remembered in a file."""

# pyright: basic

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp
import llvmlite
import llvmlite.binding as llvm
import xxhash

from server.engine.kernels import ggml
from server.engine.kernels.device import IMPORTS, device_module
from server.engine.state_file import remember

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.engine.kernels.dots import Dots

_DIGEST = 8
"""Bytes of the checksum before the code in a file."""
_OPTIMISED = 2


class MachineCode:
    """Functions by their names, as long as this lives.

    Attributes:
        key: of all that they depend on.

    Args:
        dots: how bytes are multiplied. features: those of the CPU, by LLVM's names.
        functions: names of the device's functions.
        folder: where machine code is remembered; None remembers nothing.

    Raises:
        AttributeError: a library in this process lacks what the code calls.
        RuntimeError: LLVM cannot compile it.
    """

    def __init__(self, dots: Dots, features: Mapping[str, bool], functions: Sequence[str], folder: Path | None) -> None:
        imports = {name: ggml.address(name) for name in IMPORTS}
        used = ",".join(
            f"{'+' if on and not name.startswith(dots.without) else '-'}{name}" for name, on in features.items()
        )
        self.key = _key(dots, used)
        path = folder / f"kernels-{self.key}.o" if folder else None
        llvm.initialize_native_target()
        image = _recall(path) if path else None
        if image is None:
            image = _compile(dots, used)
            if path:
                remember(path, xxhash.xxh3_64_digest(image) + image, mode=stat.S_IRUSR | stat.S_IWUSR)
        self._jit = llvm.create_lljit_compiler(use_jit_link=True)
        library = llvm.JITLibraryBuilder().add_object_img(image)
        for name, where in imports.items():
            library.import_symbol(name, where)
        for name in functions:
            library.export_symbol(name)
        self._library = library.link(self._jit, "kernels")

    def __getitem__(self, name: str) -> int:
        """The address of a function."""
        return self._library[name]


def _compile(dots: Dots, features: str) -> bytes:
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(str(device_module(dots)))
    module.verify()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=_OPTIMISED, reloc="pic", codemodel="small"
    )
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()  # sums in memory become registers; there is little else that LLVM could better
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return machine.emit_object(module)


def _key(dots: Dots, features: str) -> str:
    """What the machine code depends on: this package, LLVM, ggml, and the CPU."""
    versions = (llvmlite.__version__, llama_cpp.__version__, ggml.operation("MUL_MAT"))
    digest = xxhash.xxh3_64(repr((versions, llvm.get_host_cpu_name(), features, dots.name)).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _recall(path: Path) -> bytes | None:
    """What is remembered, whole, and by nobody else: it is to be run."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        content = file.read()
        if xxhash.xxh3_64_digest(content[_DIGEST:]) == content[:_DIGEST]:
            return content[_DIGEST:]
    return None
