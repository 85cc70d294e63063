"""The disk tier: states of sequences in files that outlive the process.

A file is a magic line, a MessagePack header and the state. Its name is the digest of what it stands for; it is
written under a temporary name, synced and renamed, by a thread of its own, so the decoding thread never waits for a
disk. A file that is torn, corrupt, of another version or made for another key (model, adapters, KV type, RoPE,
llama.cpp build) is deleted with one line in the log and never loaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server.engine.spare_memory import SpareMemory

State = npt.NDArray[np.uint8]

MAGIC = b"brim-kv-1\n"
WRITES_WAITING = 64
log = logging.getLogger("brim.kv")


class Header(msgspec.Struct, frozen=True):
    """What a file says of itself: the key its state depends on, whose it is, and the tokens it stands for."""

    key: str
    partition: str
    tokens: list[int]
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the disk tier and its size in bytes, header included."""

    path: Path
    nbytes: int


@dataclass(frozen=True, slots=True)
class Written:
    """A state that has reached the disk."""

    partition: str
    tokens: list[int]
    file: StoredFile


@dataclass(frozen=True, slots=True)
class Fetched:
    """A state read back, or None where its file turned out unusable; `seconds` is how long that took."""

    file: StoredFile
    state: State | None
    seconds: float


class DiskStore:
    """States in one folder, for one key.

    Args:
        folder: made with mode 0700 where it is missing.
        key: digest of all that a state depends on; files with another one are left to their owner unless torn.
        limit: the most bytes all files may take.
        memory: where states are read into.
    """

    def __init__(self, folder: Path, key: str, limit: int, memory: SpareMemory) -> None:
        self.limit = limit
        self.bytes = 0
        self.waiting_bytes = 0
        self._key = key
        self._memory = memory
        self._folder = folder / key
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in (folder, self._folder):
            made.chmod(0o700)
        self._work: queue.Queue[tuple[Header, State] | StoredFile | None] = queue.Queue(WRITES_WAITING)
        self._results: deque[Written | Fetched] = deque()
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="kv-disk", daemon=True)
        self._thread.start()

    def index(self) -> Iterator[Written]:
        """The usable files found in the folder, oldest first. Others are deleted."""
        found: list[tuple[float, Written]] = []
        for path in self._folder.iterdir():
            try:
                header, offset = _read_header(path)
                size = offset + header.size
                _require(header.key == self._key, "it was made for another model or build")
            except (OSError, ValueError) as error:
                self._discard(path, error)
                continue
            self.bytes += size
            found.append((path.stat().st_mtime, Written(header.partition, header.tokens, StoredFile(path, size))))
        for _, written in sorted(found, key=lambda item: item[0]):
            yield written

    def write(self, partition: str, tokens: list[int], state: State) -> bool:
        """Hand a state to the writing thread. False where too much waits already: then nothing is kept."""
        if self.waiting_bytes + state.nbytes > self.limit:
            return False
        header = Header(self._key, partition, list(tokens), state.nbytes, xxhash.xxh3_64_intdigest(state.data))
        try:
            self._work.put_nowait((header, state))
        except queue.Full:
            return False
        with self._counting:
            self.waiting_bytes += state.nbytes
        return True

    def fetch(self, file: StoredFile) -> bool:
        """Ask for a state to be read. False where too much waits already; the answer comes out of `results`."""
        try:
            self._work.put_nowait(file)
        except queue.Full:
            return False
        return True

    def results(self) -> Iterator[Written | Fetched]:
        """What the thread has done since the last call."""
        while self._results:
            yield self._results.popleft()

    def delete(self, file: StoredFile) -> None:
        """Remove a file."""
        with self._counting:
            self.bytes -= file.nbytes
        file.path.unlink(missing_ok=True)

    def close(self, wait: float) -> None:
        """Let the writes that wait finish, for at most `wait` seconds."""
        with contextlib.suppress(queue.Full):
            self._work.put(None, timeout=wait)
        self._thread.join(wait)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            if isinstance(item, StoredFile):
                self._results.append(self._read(item))
            else:
                self._save(*item)

    def _save(self, header: Header, state: State) -> None:
        packed = msgspec.msgpack.encode(header)
        name = xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode((header.partition, header.tokens)))
        path, temporary = self._folder / name, self._folder / f"{name}.tmp"
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(MAGIC + struct.pack("<I", len(packed)) + packed)
                file.write(state.data)
                file.flush()
                os.fsync(file.fileno())
            replaced = path.stat().st_size if path.exists() else 0
            temporary.rename(path)
        except OSError as error:
            log.warning("the disk tier could not write a state: %s", error)
            temporary.unlink(missing_ok=True)
            return
        finally:
            with self._counting:
                self.waiting_bytes -= state.nbytes
        size = path.stat().st_size
        with self._counting:
            self.bytes += size - replaced
        self._results.append(Written(header.partition, header.tokens, StoredFile(path, size)))

    def _read(self, file: StoredFile) -> Fetched:
        start = time.perf_counter()
        try:
            header, offset = _read_header(file.path)
            state = self._memory.take(header.size)
            with file.path.open("rb") as stream:
                stream.seek(offset)
                _require(stream.readinto(state.data) == header.size, "it is torn")
            _require(header.key == self._key, "it was made for another model or build")
            _require(xxhash.xxh3_64_intdigest(state.data) == header.checksum, "its checksum does not match")
        except (OSError, ValueError) as error:
            self._discard(file.path, error)
            return Fetched(file, None, time.perf_counter() - start)
        return Fetched(file, state, time.perf_counter() - start)

    def _discard(self, path: Path, error: Exception) -> None:
        log.warning("dropped the cached state %s: %s", path.name, error)
        path.unlink(missing_ok=True)


def _read_header(path: Path) -> tuple[Header, int]:
    """A file's header and where its state begins. Raises ValueError where it is none of ours."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 4)
        _require(start.startswith(MAGIC) and len(start) == len(MAGIC) + 4, "it is no state file of this version")
        (length,) = struct.unpack("<I", start[len(MAGIC) :])
        _require(length <= path.stat().st_size, "it is torn")
        header = msgspec.msgpack.decode(file.read(length), type=Header)
    offset = len(start) + length
    _require(path.stat().st_size == offset + header.size, "it is torn")
    return header, offset


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
