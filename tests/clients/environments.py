"""Environments of their own for clients whose packages brim's cannot hold, each made once and kept in the user's cache.

A folder is named by the hash of the files that pin its packages, and takes its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = platformdirs.user_cache_path("brim") / "test-clients"
INSTALL_WITHIN = 240.0


def program(name: str) -> str:
    """Where a program is; skips the test where it is absent."""
    found = shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def node_modules(pins: Path) -> Path:
    """The packages of `pins`, a folder with package.json and package-lock.json."""
    files = [pins / "package.json", pins / "package-lock.json"]

    def install(target: Path) -> None:
        for file in files:
            shutil.copy(file, target)
        run([program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], target)

    return _cached("node", files, install) / "node_modules"


def python_with(requirements: Path) -> Path:
    """A Python that has exactly these packages."""

    def install(target: Path) -> None:
        uv = program("uv")
        run([uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, "environment"], target)
        python = str(target / "environment" / "bin" / "python")
        run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "-r", str(requirements)], target)

    return _cached("python", [requirements], install) / "environment" / "bin" / "python"


def run(command: list[str], folder: Path) -> None:
    """Run a command; where it fails, so does the test, with what it wrote."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_WITHIN,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command} failed: {done.stdout}{done.stderr}"


def _cached(kind: str, pins: list[Path], install: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in pins) + sys.version.encode()).hexdigest()[:16]
    folder = CACHE / f"{kind}-{digest}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as building:
        made = Path(building) / "made"
        made.mkdir()
        install(made)
        try:
            made.rename(folder)
        except OSError:
            assert folder.exists()  # another run was faster
    return folder
