"""What was learned of this machine, kept in the user's cache folder: small JSON files, each replaced in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs

T = TypeVar("T")


def folder() -> Path:
    """Where it is kept. Deleting it costs nothing but the time to measure again."""
    return platformdirs.user_cache_path("brim") / "offload"


def recall(name: str, kind: type[T]) -> T | None:
    """What was kept under a name; None where there is nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode((folder() / f"{name}.json").read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def remember(name: str, value: object) -> None:
    """Keep a value under a name. A folder that cannot be written to is no error: it is measured again next time."""
    with contextlib.suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder(), suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(value))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(folder() / f"{name}.json")
