"""What the store does with files: hash them, bring them in without copying where possible, write them all or not."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_BYTES = 4 * 1024**2
FICLONE = 0x40049409
"""Linux's ioctl that lets a file share another's blocks until one of them is written (linux/fs.h)."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def sha256(path: Path, progress: Progress | None = None) -> str:
    """The digest of a file's content, as `sha256:` and hexadecimal digits."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
    return f"sha256:{digest.hexdigest()}"


def bring(source: Path, target: Path, *, move: bool) -> None:
    """Make `target` hold what `source` holds.

    In the cheapest way the file systems allow: a rename if `source` may go, shared blocks, a hard link, or a copy.
    """
    if move:
        shutil.move(source, target)
    elif not (_reflink(source, target) or _hard_link(source, target)):
        shutil.copyfile(source, target)


def _reflink(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    try:
        with source.open("rb") as original, target.open("xb") as copy:
            fcntl.ioctl(copy, FICLONE, original.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True


def _hard_link(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it, even after a power failure, finds either the old or the new content."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's list of files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
