"""What this machine can compile with, and which backend of llama.cpp follows from that."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OLDEST_PYTHON = (3, 11)
BACKENDS = ("cpu", "cuda", "hip", "vulkan", "metal")

NVIDIA_DRIVER_SIGNS = ("proc/driver/nvidia", "dev/nvidiactl", "dev/nvhost-gpu", "usr/lib/wsl/lib/libcuda.so.1")
AMD_DRIVER_SIGNS = ("dev/kfd",)
LIBRARY_FOLDERS = ("usr/lib", "usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/local/lib")

# Package manager by the distribution's ID or ID_LIKE in /etc/os-release.
CXX_PACKAGES = {
    "debian": "sudo apt install g++",
    "fedora": "sudo dnf install gcc-c++",
    "rhel": "sudo dnf install gcc-c++",
    "arch": "sudo pacman -S gcc",
    "suse": "sudo zypper install gcc-c++",
    "alpine": "sudo apk add g++ linux-headers",
}


class SetupError(Exception):
    """A sentence for the user: what stops the set-up, and what to do about it."""


@dataclass(frozen=True)
class Machine:
    """What was found on a machine, as far as the choice of a backend depends on it."""

    system: str = "Linux"
    nvcc: str | None = None
    nvidia_driver: bool = False
    hipcc: str | None = None
    amd_driver: bool = False
    vulkan: bool = False


@dataclass(frozen=True)
class Backend:
    """A backend to build llama.cpp with: its name, CMake's arguments, and a line for the user where one is due."""

    name: str
    cmake_args: tuple[str, ...] = ()
    remark: str | None = None


def describe_machine(environ: Mapping[str, str], root: Path = Path("/")) -> Machine:
    """Looks for compilers, drivers and headers; runs nothing, so it takes milliseconds.

    Args:
        environ: PATH, CUDA_HOME, ROCM_PATH and VULKAN_SDK are read from it.
        root: the file system's root.
    """
    search = environ.get("PATH", os.defpath)
    cuda_homes = [environ.get("CUDA_HOME"), *map(str, sorted(root.glob("usr/local/cuda*"), reverse=True))]
    rocm_homes = [environ.get("ROCM_PATH"), *map(str, sorted(root.glob("opt/rocm*"), reverse=True))]
    return Machine(
        system=platform.system(),
        nvcc=_find_program("nvcc", search, cuda_homes),
        nvidia_driver=any((root / sign).exists() for sign in NVIDIA_DRIVER_SIGNS),
        hipcc=_find_program("hipcc", search, rocm_homes),
        amd_driver=any((root / sign).exists() for sign in AMD_DRIVER_SIGNS),
        vulkan=_has_vulkan(environ, search, root),
    )


def _find_program(name: str, search: str, homes: Iterable[str | None]) -> str | None:
    folders = [search, *(str(Path(home, "bin")) for home in homes if home)]
    return shutil.which(name, path=os.pathsep.join(folders))


def _has_vulkan(environ: Mapping[str, str], search: str, root: Path) -> bool:
    """Whether glslc, the loader and both sets of headers are there: what ggml's Vulkan backend is built from."""
    sdk = environ.get("VULKAN_SDK")
    prefixes = [root / "usr", root / "usr/local", *([Path(sdk)] if sdk else [])]
    libraries = [root / folder for folder in LIBRARY_FOLDERS] + ([Path(sdk, "lib")] if sdk else [])
    return (
        _find_program("glslc", search, [sdk]) is not None
        and any((folder / "libvulkan.so").exists() for folder in libraries)
        and any((prefix / "include/vulkan/vulkan.h").exists() for prefix in prefixes)
        and any((prefix / "include/spirv/unified1/spirv.hpp").exists() for prefix in prefixes)
    )


def choose_backend(machine: Machine, wanted: str = "") -> Backend:
    """Chooses the backend that serves a machine best.

    A compiler for a GPU whose driver is missing is passed over: its kernels take far longer to compile than all the
    rest, and nothing could run them.

    Args:
        machine: what the machine has.
        wanted: a name of BACKENDS to have instead, or "" for the best.

    Raises:
        SetupError: `wanted` is no backend, or its compiler is missing.
    """
    if wanted:
        return _backend_by_name(machine, wanted)
    if machine.system == "Darwin":
        return _backend_by_name(machine, "metal")
    if machine.nvcc and machine.nvidia_driver:
        return _backend_by_name(machine, "cuda")
    if machine.hipcc and machine.amd_driver:
        return _backend_by_name(machine, "hip")
    return Backend(
        name="vulkan" if machine.vulkan else "cpu",
        cmake_args=("-DGGML_VULKAN=ON",) if machine.vulkan else (),
        remark=_why_no_gpu_toolkit(machine),
    )


def _backend_by_name(machine: Machine, name: str) -> Backend:
    if name == "cuda":
        if not machine.nvcc:
            raise SetupError(
                "BRIM_BACKEND=cuda needs the CUDA toolkit, and no nvcc was found on PATH or in /usr/local."
            )
        # Only this machine's cards: a third of the compile time. Without a card, ggml's own list of architectures.
        present_card = ("-DCMAKE_CUDA_ARCHITECTURES=native",) if machine.nvidia_driver else ()
        return Backend("cuda", ("-DGGML_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={machine.nvcc}", *present_card))
    if name == "hip":
        if not machine.hipcc:
            raise SetupError("BRIM_BACKEND=hip needs ROCm, and no hipcc was found on PATH or in /opt/rocm.")
        return Backend("hip", ("-DGGML_HIP=ON", f"-DCMAKE_PREFIX_PATH={Path(machine.hipcc).parents[1]}"))
    if name == "vulkan":
        if not machine.vulkan:
            raise SetupError(
                "BRIM_BACKEND=vulkan needs glslc, the Vulkan loader, its headers and SPIRV-Headers "
                "(Debian: sudo apt install glslc libvulkan-dev spirv-headers)."
            )
        return Backend("vulkan", ("-DGGML_VULKAN=ON",))
    if name == "metal":
        if machine.system != "Darwin":
            raise SetupError("BRIM_BACKEND=metal works on macOS only.")
        return Backend("metal", ("-DGGML_METAL=ON",))
    if name == "cpu":
        return Backend("cpu")
    raise SetupError(f"BRIM_BACKEND={name} is no backend; choose one of {', '.join(BACKENDS)}.")


def _why_no_gpu_toolkit(machine: Machine) -> str | None:
    if machine.nvcc:
        return "nvcc is here but no NVIDIA driver, so CUDA is left out; BRIM_BACKEND=cuda builds it all the same."
    if machine.nvidia_driver:
        return "An NVIDIA driver is here but no nvcc: install the CUDA toolkit and run this again to use CUDA."
    if machine.hipcc:
        return "hipcc is here but no AMD GPU (/dev/kfd), so HIP is left out; BRIM_BACKEND=hip builds it all the same."
    return None


def check_python() -> None:
    """Raises SetupError where this Python is too old or cannot make virtual environments."""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        newer = next((name for minor in range(19, 10, -1) if shutil.which(name := f"python3.{minor}")), None)
        hint = f"run `make PYTHON={newer}`" if newer else "install a newer one and run `make PYTHON=...`"
        raise SetupError(
            f"brim needs Python {oldest} or newer, and {sys.executable} is {platform.python_version()}: {hint}."
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            "This Python cannot make virtual environments, as its module ensurepip is missing "
            f"(Debian: sudo apt install python3.{sys.version_info.minor}-venv)."
        )


def check_compiler(environ: Mapping[str, str], os_release: Path = Path("/etc/os-release")) -> None:
    """Raises SetupError, naming the package to install, where there is no C++ compiler."""
    if platform.system() == "Darwin":
        # /usr/bin/c++ is there always; without the tools it only opens a dialog.
        if subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode != 0:
            raise SetupError("llama.cpp needs a C++ compiler to be built: run `xcode-select --install`.")
        return
    candidates = (environ.get("CXX", ""), "c++", "g++", "clang++")
    if not any(shutil.which(name, path=environ.get("PATH")) for name in candidates if name):
        raise SetupError(
            f"llama.cpp needs a C++ compiler to be built, and none was found: {_compiler_package(os_release)}."
        )


def _compiler_package(os_release: Path) -> str:
    lines = os_release.read_text().splitlines() if os_release.exists() else []
    families = [
        word for line in lines if line.startswith(("ID=", "ID_LIKE=")) for word in line.split("=")[1].strip('"').split()
    ]
    command = next((CXX_PACKAGES[family] for family in families if family in CXX_PACKAGES), None)
    return f"run `{command}`" if command else "install g++ or clang++"
