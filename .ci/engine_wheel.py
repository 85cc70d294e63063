"""Compiles llama-cpp-python, llama.cpp included, from its source distribution, and keeps the wheel for next time."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from progress import run_logged
from toolchain import check_compiler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain import Backend

PACKAGE = "llama-cpp-python"
CMAKE_INCLUDE = Path(__file__).parent / "llama_cpp.cmake"
# llama.cpp's own install rules put a second copy of every library, and its headers, outside the package.
LEFT_OUT_OF_WHEEL = "lib/**;include/**;bin/**"


@dataclass(frozen=True)
class EngineWheel:
    """One build of llama-cpp-python, named by everything that its machine code depends on.

    Attributes:
        requirement: its lines of the lock file: exact version and hashes.
        backend: the backend to compile for.
        environ: CMAKE_ARGS are appended to ours; BRIM_NO_WHEEL_CACHE=1 keeps the cache out of it.
    """

    requirement: str
    backend: Backend
    environ: Mapping[str, str]

    @property
    def cmake_args(self) -> tuple[str, ...]:
        """What CMake is called with, the user's own arguments last so that they win."""
        return ("-DGGML_RPC=ON", *self.backend.cmake_args, *shlex.split(self.environ.get("CMAKE_ARGS", "")))

    @property
    def key(self) -> str:
        """A digest of version, arguments, system and processor: ggml is compiled for the very CPU it finds."""
        parts = (
            self.requirement,
            *self.cmake_args,
            CMAKE_INCLUDE.read_text(),
            LEFT_OUT_OF_WHEEL,
            platform.system(),
            platform.machine(),
            *platform.libc_ver(),
            describe_cpu(),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def cache_folder(self) -> Path | None:
        """Where the finished wheel is kept, or None where the user wants no cache."""
        if self.environ.get("BRIM_NO_WHEEL_CACHE", "0") not in {"", "0"}:
            return None
        if platform.system() == "Darwin":
            base = Path.home() / "Library/Caches"
        else:
            base = Path(self.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return base / "brim/wheels" / self.key

    @property
    def cached(self) -> Path | None:
        """The wheel as compiled before, if it is in the cache."""
        return find_wheel(self.cache_folder) if self.cache_folder else None

    def check_obtainable(self) -> None:
        """Raises SetupError where the wheel has to be compiled and there is no compiler."""
        if not self.cached:
            check_compiler(self.environ)

    def obtain(self, python: Path, work: Path, log: Path) -> Path:
        """Returns the wheel, from the cache or newly compiled.

        Args:
            python: the interpreter that has pip, scikit-build-core, cmake and ninja.
            work: a folder for source and objects. What an interrupted build left in it is used again.
            log: the file that pip's and the compiler's output is appended to.

        Raises:
            SetupError: the build failed.
        """
        if self.cached:
            print(f"  Taking llama.cpp ({self.backend.name}) as compiled before: {self.cached.parent}")
            return self.cached
        wheel = self._compile(python, work / self.key, log)
        return keep(wheel, self.cache_folder) if self.cache_folder else wheel

    def _compile(self, python: Path, work: Path, log: Path) -> Path:
        work.mkdir(parents=True, exist_ok=True)
        cmake_args = (*self.cmake_args, f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={CMAKE_INCLUDE}")
        environ = {
            **self.environ,
            "CMAKE_ARGS": shlex.join(cmake_args),
            "PATH": os.pathsep.join([str(python.parent), self.environ.get("PATH", os.defpath)]),
        }
        source = self._fetch_source(python, work, log, environ)
        run_logged(
            f"Compiling llama.cpp ({self.backend.name}), once, for some minutes",
            [
                *(str(python), "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation"),
                *("-C", f"build-dir={work / 'cmake'}", "-C", f"wheel.exclude={LEFT_OUT_OF_WHEEL}"),
                *("--wheel-dir", str(work / "dist"), str(source)),
            ],
            log,
            environ,
        )
        wheel = find_wheel(work / "dist")
        assert wheel, "pip wheel succeeded without a wheel"
        return wheel

    def _fetch_source(self, python: Path, work: Path, log: Path, environ: Mapping[str, str]) -> Path:
        """Downloads and unpacks the source distribution, unless an earlier try has."""
        source = work / "source"
        if source.exists():
            return source
        requirement = work / "requirement.txt"
        requirement.write_text(self.requirement)
        run_logged(
            f"Downloading {PACKAGE}",
            [
                *(str(python), "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-binary", PACKAGE),
                *("--require-hashes", "--requirement", str(requirement), "--dest", str(work)),
            ],
            log,
            environ,
        )
        archive = next(work.glob("*.tar.gz"))
        with tempfile.TemporaryDirectory(dir=work) as unpacked, tarfile.open(archive) as tar:
            # Python before 3.11.4, such as Debian 12's, has no filters; the archive is pinned by its hash either way.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(unpacked)
            next(Path(unpacked).iterdir()).rename(source)
        return source


def describe_cpu() -> str:
    """The processor's model and its instruction sets."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    with cpuinfo.open() as file:
        first_core = file.read(8192).split("\n\n")[0]
    telling = ("model name", "flags", "Features", "CPU part")
    return "\n".join(line for line in first_core.splitlines() if line.startswith(telling))


def find_wheel(folder: Path) -> Path | None:
    """The wheel in a folder, if there is one."""
    return next(iter(sorted(folder.glob("*.whl"))), None)


def keep(wheel: Path, folder: Path) -> Path:
    """Copies a wheel into the cache: whole under a temporary name, then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / wheel.name
    partial = folder / f"{wheel.name}.{os.getpid()}.partial"
    shutil.copyfile(wheel, partial)
    partial.replace(kept)
    return kept
