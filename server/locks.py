"""Locks of files and folders between processes: they are gone with who holds them, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a file's or folder's lock, waiting for whoever has it. It is gone with the process, however that ends."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed. False where somebody has it. Raises OSError without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody holds a file's or folder's lock."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)
