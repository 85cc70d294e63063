"""Builds the peers that brim is measured against, once, from the source distribution of the pinned llama-cpp-python.

python -m benchmarks.peers
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "peers"
SOURCE = FOLDER / "source"
LLAMA_SERVER = FOLDER / "cmake" / "bin" / "llama-server"
EXAMPLE_SERVER = SOURCE / "examples" / "server" / "server.py"
TARGETS = ("llama-server", "llama-bench", "llama-quantize", "llama-perplexity")
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_RPC=ON",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)


def fetch() -> None:
    """Unpack the source distribution into build/peers/source, where it is not there yet."""
    if EXAMPLE_SERVER.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    requirement = f"llama-cpp-python=={version('llama-cpp-python')}"
    download = ("-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d")
    subprocess.run([sys.executable, *download, str(FOLDER), requirement], check=True)
    (archive,) = FOLDER.glob("llama_cpp_python-*.tar.gz")
    unpacked = FOLDER / archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4 has none
        tar.extractall(FOLDER)
    unpacked.rename(SOURCE)
    archive.unlink()


def build() -> None:
    """Compile llama.cpp's own programs, for the same backend as brim's llama-cpp-python was compiled for."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if cmake is None:
        sys.exit("cmake is missing: run `make test` once, which sets it up")
    source, out = SOURCE / "vendor" / "llama.cpp", FOLDER / "cmake"
    backend = [option for option in os.environ.get("CMAKE_ARGS", "").split() if re.match(r"-DGGML_\w+=", option)]
    subprocess.run([cmake, "-S", source, "-B", out, "-G", "Ninja", *OPTIONS, *backend], check=True)
    subprocess.run([cmake, "--build", out, "--target", *TARGETS], check=True)


def main() -> None:
    """Fetch and build what is not there yet."""
    try:
        fetch()
    except subprocess.CalledProcessError as error:
        sys.exit(f"the source distribution of llama-cpp-python could not be downloaded: {error}")
    if not LLAMA_SERVER.exists():
        build()
    print(f"{LLAMA_SERVER}\n{EXAMPLE_SERVER}")


if __name__ == "__main__":
    main()
