"""The disk tier: states of sequences in files that outlive the process.

A file is written under a temporary name, synced and renamed, by a thread of its own, so the decoding thread never waits
for a disk. A file that is torn, corrupt, of another name or version or made for another key (model, adapters, KV type,
RoPE, llama.cpp build) is deleted with one line in the log and never loaded. Whatever the disk refuses costs no more
than a line in the log either.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from server.engine.kv_file import Header, State, file_name, file_start, is_state, read_header, require
from server.locks import is_locked, lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server.engine.spare_memory import SpareMemory

FOLDERS = 16
"""Processes that may use states of one key at a time, each in a folder of its own."""
TURNOVER = 1.0
"""Seconds that a process may take to end while the next one begins: its folder is worth waiting for."""
RETRY = 60.0
"""Seconds after a failed write within which no state is copied for another one."""
_READ, _WRITE, _STOP = range(3)
"""What the thread does first: for a state that is read, a prompt waits."""
log = logging.getLogger("brim.kv")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the disk tier and its size in bytes, header included."""

    path: Path
    nbytes: int


@dataclass(frozen=True, slots=True)
class Written:
    """A state that has reached the disk.

    Attributes:
        last_used: as it was told of when the state was handed over; None where it was found there.
    """

    partition: str
    tokens: list[int]
    file: StoredFile
    last_used: int | None = None


@dataclass(frozen=True, slots=True)
class Unwritten:
    """A state that the disk did not take."""

    partition: str
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A state read back.

    Attributes:
        state: None where it could not be read.
        seconds: how long that took.
        lost: whether that is for good, since the file is gone or was unusable.
    """

    file: StoredFile
    state: State | None
    seconds: float
    lost: bool


@dataclass(frozen=True, slots=True)
class _Saving:
    """A state on its way to the disk."""

    header: Header
    state: State
    nbytes: int
    last_used: int | None
    stamp: float | None


Result = Written | Unwritten | Fetched
_Work = StoredFile | _Saving | None


class DiskStore:
    """States for one key, in a folder that no other process uses meanwhile.

    Args:
        folder: made with mode 0700 where it is missing. Each key has a folder in there, and more of them where several
            processes use it; what those that none uses hold together beyond `limit` is deleted, oldest first.
        key: digest of all that a state depends on.
        limit: the most bytes all files of this key may take.
        memory: where states are read into. As much as may lie spare there may be on its way to the disk or back.

    Attributes:
        room: bytes that may be on their way in one direction; a single state may take more.

    Raises:
        OSError: the folder cannot be made or is not to be written, or too many processes have theirs.
    """

    def __init__(self, folder: Path, key: str, limit: int, memory: SpareMemory) -> None:
        self.limit = limit
        self.room = memory.limit // 2
        self.bytes = 0
        self.waiting_bytes = 0
        self._key = key
        self._memory = memory
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder, self._in_use = _own_folder(folder, key)
        self._temporary = self._folder / f"{os.getpid()}.tmp"
        _bound_unused(folder, limit)
        self._work: queue.PriorityQueue[tuple[int, int, _Work]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._results: deque[Result] = deque()
        self._failed_at = -RETRY
        self._counting = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="kv-disk", daemon=True)
        self._thread.start()

    def index(self) -> Iterator[Written]:
        """The usable files found in the folder, the one that was used least recently first. Others are deleted."""
        found: list[tuple[float, Written]] = []
        for path in self._folder.iterdir():
            if not path.is_file() or path.is_symlink():
                continue  # nothing of brim's; a pipe would never let itself be read
            try:
                header, offset = self._header(path)
                file = StoredFile(path, offset + header.size)
                found.append((path.stat().st_mtime, Written(header.partition, header.tokens, file)))
            except ValueError as error:
                _discard(path, error)
            except OSError as error:
                log.warning("the cached state %s cannot be read: %s", path.name, error)
        self.bytes = sum(written.file.nbytes for _, written in found)
        for _, written in sorted(found, key=lambda item: item[0]):
            yield written

    @property
    def idle(self) -> bool:
        """Whether it is worth copying a state to write it: no other waits, and none has failed of late."""
        return not self.waiting_bytes and time.monotonic() >= self._failed_at + RETRY

    def write(
        self,
        partition: str,
        tokens: list[int],
        state: State,
        *,
        patience: float = 0.0,
        last_used: int | None = None,
        stamp: float | None = None,
    ) -> bool:
        """Hand a state to the writing thread.

        False where too much waits already, even after `patience` seconds: then nothing is kept. What is larger than all
        files may be is never written, however often it is handed over.

        Args:
            last_used: comes back with the result. stamp: as `stamp` takes it; None is now.
        """
        size = self.size_of(partition, tokens, state)
        if size > self.limit:
            return True
        with self._counting:
            if not self._counting.wait_for(lambda: self._takes(size), patience):
                return False
            self.waiting_bytes += size
        header = Header(self._key, partition, list(tokens), state.nbytes, xxhash.xxh3_64_intdigest(state.data))
        self._put(_WRITE, _Saving(header, state, size, last_used, stamp))
        return True

    def size_of(self, partition: str, tokens: list[int], state: State) -> int:
        """Bytes that a state takes as a file, at most."""
        header = Header(self._key, partition, tokens, state.nbytes, (1 << 64) - 1)
        return len(file_start(header)) + state.nbytes

    def stamp(self, file: StoredFile, used: float) -> None:
        """Note when a state was used last, by the clock of files. After a restart the oldest use goes first."""
        with contextlib.suppress(OSError):
            os.utime(file.path, (used, used))

    def _takes(self, size: int) -> bool:
        return not self.waiting_bytes or self.waiting_bytes + size <= self.room

    def drain(self, wait: float) -> None:
        """Wait until nothing waits to be written, for at most `wait` seconds."""
        with self._counting:
            self._counting.wait_for(lambda: not self.waiting_bytes, wait)

    def fetch(self, file: StoredFile) -> None:
        """Ask for a state to be read; the answer comes out of `results`."""
        self._put(_READ, file)

    def _put(self, urgency: int, work: _Work) -> None:
        self._work.put((urgency, next(self._numbers), work))

    def results(self) -> Iterator[Result]:
        """What the thread has done since the last call."""
        while self._results:
            yield self._results.popleft()

    def delete(self, file: StoredFile) -> None:
        """Remove a file."""
        with self._counting:
            self.bytes -= file.nbytes
        _unlink(file.path)

    def close(self, wait: float) -> None:
        """Let the writes that wait finish, for at most `wait` seconds."""
        self._put(_STOP, None)
        self._thread.join(wait)
        if not self._thread.is_alive():
            os.close(self._in_use)

    def _run(self) -> None:
        while (work := self._work.get()[-1]) is not None:
            self._results.append(self._read(work) if isinstance(work, StoredFile) else self._save(work))
            del work  # its memory is wanted while the thread waits for more

    def _save(self, work: _Saving) -> Written | Unwritten:
        try:
            return self._write_file(work)
        except Exception as error:  # the thread must go on: prompts wait for what it is to read
            log.warning("the disk tier could not write a state: %s", error)
            self._failed_at = time.monotonic()
            _unlink(self._temporary)
            return Unwritten(work.header.partition, work.header.tokens)
        finally:
            with self._counting:
                self.waiting_bytes -= work.nbytes
                self._counting.notify_all()

    def _write_file(self, work: _Saving) -> Written:
        header, state = work.header, work.state
        start = file_start(header)
        with os.fdopen(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(start)
            file.write(state.data)
            file.flush()
            os.fsync(file.fileno())
        if work.stamp is not None:
            os.utime(self._temporary, (work.stamp, work.stamp))
        path = self._folder / file_name(header.partition, header.tokens)
        replaced = path.stat().st_size if path.exists() else 0
        self._temporary.rename(path)
        size = len(start) + state.nbytes
        with self._counting:
            self.bytes += size - replaced
        return Written(header.partition, header.tokens, StoredFile(path, size), work.last_used)

    def _read(self, file: StoredFile) -> Fetched:
        start = time.perf_counter()
        state, lost = None, False
        try:
            state = self._load(file.path)
            self.stamp(file, time.time())
        except (FileNotFoundError, ValueError) as error:
            lost = True
            _discard(file.path, error)
        except Exception as error:  # a prompt waits for the answer, and others for the thread
            log.warning("the cached state %s cannot be read: %s", file.path.name, error)
        return Fetched(file, state, time.perf_counter() - start, lost)

    def _load(self, path: Path) -> State:
        header, offset = self._header(path)
        state = self._memory.take(header.size)
        with path.open("rb") as stream:
            stream.seek(offset)
            require(stream.readinto(state.data) == header.size, "it is torn")
        require(xxhash.xxh3_64_intdigest(state.data) == header.checksum, "its checksum does not match")
        return state

    def _header(self, path: Path) -> tuple[Header, int]:
        """The header of a file of this key, and where its state begins. Raises ValueError where it is none."""
        header, offset = read_header(path)
        require(header.key == self._key, "it was made for another model or build")
        require(path.name == file_name(header.partition, header.tokens), "its name is not that of its tokens")
        return header, offset


def _own_folder(folder: Path, key: str) -> tuple[Path, int]:
    """A folder for a key that no other process uses, and a descriptor that holds it. Raises OSError."""
    deadline = time.monotonic() + TURNOVER
    for number in range(FOLDERS):
        own = folder / (f"{key}-{number}" if number else key)
        own.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # a link would lead to anybody's files
        os.fchmod(descriptor, 0o700)
        while not (mine := _take(descriptor)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if mine:
            return own, descriptor
        os.close(descriptor)
    raise OSError(f"{FOLDERS} processes keep states of this model in {folder} already")


def _take(folder: int) -> bool:
    """Lock an open folder. Where there are no locks all may have it, and nobody deletes what others use."""
    try:
        return lock(folder)
    except OSError:
        return True


def _bound_unused(folder: Path, limit: int) -> None:
    """Delete states of keys that no process uses, oldest first, while they take more than `limit`."""
    with contextlib.suppress(OSError):  # as where another process is at it too
        unused = [key for key in folder.iterdir() if key.is_dir() and not (key.is_symlink() or _is_used(key))]
        states = [(path, path.stat()) for key in unused for path in key.iterdir() if is_state(path)]
        excess = sum(about.st_size for _, about in states) - limit
        for path, about in sorted(states, key=lambda item: item[1].st_mtime):
            if excess <= 0:
                break
            excess -= about.st_size
            _unlink(path)


def _is_used(folder: Path) -> bool:
    """Whether a process uses a key's folder, or may do so for all that can be found out."""
    try:
        return is_locked(folder)
    except OSError:
        return True


def _discard(path: Path, error: Exception) -> None:
    log.warning("dropped the cached state %s: %s", path.name, error)
    _unlink(path)


def _unlink(path: Path) -> None:
    """Delete a file if it is there and the disk lets it go."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the disk tier could not delete %s: %s", path.name, error)
