"""The disk tier on real files: what comes back, and what is never loaded."""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.engine.kv_store import DiskStore, Fetched, Written
from server.engine.spare_memory import SpareMemory

if TYPE_CHECKING:
    from pathlib import Path

STATE = np.arange(10_000, dtype=np.uint8)


def wait(store: DiskStore) -> Written | Fetched:
    """The thread's next result."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for result in store.results():
            return result
        time.sleep(0.01)
    raise AssertionError("the disk's thread said nothing")


def write(store: DiskStore, tokens: list[int]) -> Written:
    assert store.write("alice", tokens, STATE)
    written = wait(store)
    assert isinstance(written, Written)
    return written


def test_a_state_survives_a_restart(tmp_path: Path) -> None:
    first = DiskStore(tmp_path / "kv", "key", 1 << 20, SpareMemory(1 << 20))
    write(first, [1, 2, 3])
    first.close(5)
    second = DiskStore(tmp_path / "kv", "key", 1 << 20, SpareMemory(1 << 20))
    (found,) = second.index()
    assert (found.partition, found.tokens) == ("alice", [1, 2, 3])
    assert second.bytes == found.file.nbytes == found.file.path.stat().st_size
    second.fetch(found.file)
    fetched = wait(second)
    assert isinstance(fetched, Fetched)
    assert fetched.state is not None
    assert (fetched.state == STATE).all()
    second.close(5)


def test_other_keys_do_not_meet(tmp_path: Path) -> None:
    first = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    write(first, [1])
    other = DiskStore(tmp_path, "another", 1 << 20, SpareMemory(1 << 20))
    assert list(other.index()) == []
    for store in (first, other):
        store.close(5)


@pytest.mark.parametrize("damage", ["torn", "corrupt", "foreign", "empty", "another key"])
def test_a_damaged_file_is_dropped_and_never_loaded(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    path = write(store, [1, 2]).file.path
    data = path.read_bytes()
    damaged = {
        "torn": data[:-100],
        "corrupt": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
        "foreign": b"something else entirely",
        "empty": b"",
        "another key": data.replace(b"key\xa3key", b"key\xa3yek"),
    }
    path.write_bytes(damaged[damage])
    store.close(5)
    again = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    for found in again.index():
        again.fetch(found.file)
        fetched = wait(again)
        assert isinstance(fetched, Fetched)
        assert fetched.state is None
    assert not path.exists()
    assert len([record for record in caplog.records if path.name in record.message]) == 1
    again.close(5)


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "kv", "key", 1 << 20, SpareMemory(1 << 20))
    file = write(store, [1]).file.path
    assert stat.S_IMODE((tmp_path / "kv").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close(5)


def test_what_waits_to_be_written_is_bounded(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "key", 15_000, SpareMemory(1 << 20))
    assert not store.write("alice", [1], np.zeros(20_000, np.uint8))
    store.close(5)
