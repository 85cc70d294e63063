"""The disk tier on real files: what comes back, and what is never loaded."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.engine import kv_file, kv_store
from server.engine.kv_store import DiskStore, Fetched, StoredFile, Unwritten, Written
from server.engine.spare_memory import SpareMemory
from tests.engine.test_engine import PROMPT, ask, gauges

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from server.engine.kv_store import Result
    from tests.engine.conftest import StartEngine

STATE = np.arange(10_000, dtype=np.uint8)


def wait(store: DiskStore) -> Result:
    """The thread's next result."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for result in store.results():
            return result
        time.sleep(0.001)
    raise AssertionError("the disk's thread said nothing")


def fetch(store: DiskStore, file: StoredFile) -> Fetched:
    store.fetch(file)
    fetched = wait(store)
    assert isinstance(fetched, Fetched)
    return fetched


@contextmanager
def held(store: DiskStore, folder: Path) -> Generator[None]:
    """Meanwhile the thread waits for what a pipe has to say; that it says nothing is the thread's next result."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    store.fetch(StoredFile(pipe, 0))
    yield
    pipe.write_bytes(b"")


@contextmanager
def no_more_files() -> Generator[None]:
    """Meanwhile this process cannot open a file."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


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
    fetched = fetch(second, found.file)
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


def test_two_processes_with_one_key_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_store, "TURNOVER", 0.0)
    first, second = (DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20)) for _ in range(2))
    files = [write(store, [1]).file for store in (first, second)]
    assert first.bytes == second.bytes == files[0].nbytes
    assert files[0].path.parent != files[1].path.parent
    assert [len(list(store.index())) for store in (first, second)] == [1, 1]
    first.close(5)
    third = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    assert [found.file for found in third.index()] == files[:1]
    monkeypatch.setattr(kv_store, "FOLDERS", 2)
    with pytest.raises(OSError, match="2 processes keep states of this model"):
        DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    for store in (second, third):
        store.close(5)


def test_a_process_waits_a_moment_for_the_folder_of_one_that_ends(tmp_path: Path) -> None:
    first = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    file = write(first, [1]).file
    ending = threading.Timer(0.1, first.close, [5])
    ending.start()
    second = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    assert [found.file for found in second.index()] == [file]
    ending.join()
    second.close(5)


def test_a_link_is_not_followed_to_anybodys_files(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir(mode=0o755)
    note = tmp_path / "notes" / "note"
    note.touch()
    (tmp_path / "kv").mkdir()
    (tmp_path / "kv" / "key").symlink_to(note.parent)
    with pytest.raises(OSError):
        DiskStore(tmp_path / "kv", "key", 1 << 20, SpareMemory(1 << 20))
    assert note.exists()
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o755


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    os.mkfifo(tmp_path / "key" / "pipe")
    (tmp_path / "key" / "link").symlink_to(__file__)
    assert not list(store.index())
    assert len(list((tmp_path / "key").iterdir())) == 2
    store.close(5)


def test_a_header_of_endless_lists_is_dropped(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    path = tmp_path / "key" / "deep"
    header = b"\x86\xa1x" + b"\x91" * 5000 + b"\xc0"
    path.write_bytes(kv_file.MAGIC + len(header).to_bytes(4, "little") + header)
    assert not list(store.index())
    assert not path.exists()
    store.close(5)


@pytest.mark.parametrize("damage", ["torn", "corrupt", "header", "foreign", "empty", "another key"])
def test_a_damaged_file_is_dropped_and_never_loaded(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    path = write(store, [1, 2]).file.path
    data = path.read_bytes()
    damaged = {
        "torn": data[:-100],
        "corrupt": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
        "header": data.replace(b"alice", b"bobby"),
        "foreign": b"something else entirely",
        "empty": b"",
        "another key": data.replace(b"key\xa3key", b"key\xa3yek"),
    }
    path.write_bytes(damaged[damage])
    store.close(5)
    again = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    for found in again.index():
        assert fetch(again, found.file).state is None
    assert not path.exists()
    assert len([record for record in caplog.records if path.name in record.message]) == 1
    again.close(5)


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "kv", "key", 1 << 20, SpareMemory(1 << 20))
    file = write(store, [1]).file.path
    assert stat.S_IMODE((tmp_path / "kv").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close(5)


def test_a_file_with_any_one_bit_flipped_is_never_loaded(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    assert store.write("alice", [1, 200, 70_000, -5], STATE[:20])
    written = wait(store)
    assert isinstance(written, Written)
    path = written.file.path
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        fetched = [fetch(store, found.file) for found in store.index()]
        assert all(result.state is None and result.lost for result in fetched), f"bit {bit}"
        assert not path.exists()
    store.close(5)


def test_what_a_crash_left_behind_is_no_file(tmp_path: Path) -> None:
    first = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    path = write(first, [1]).file.path
    first.close(5)
    path.rename(path.with_suffix(".tmp"))
    second = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    assert not list(second.index())
    assert second.bytes == 0
    assert not list(path.parent.iterdir())
    second.close(5)


def test_what_waits_to_be_written_is_bounded(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(30_000))
    with held(store, tmp_path):
        assert store.write("alice", [1], STATE)
        assert not store.idle
        assert not store.write("alice", [2], STATE)
        assert store.write("alice", [3], STATE[:4000])
    assert isinstance(wait(store), Fetched)
    assert [isinstance(wait(store), Written) for _ in range(2)] == [True, True]
    assert store.waiting_bytes == 0
    assert store.idle
    store.close(5)


def test_a_single_state_may_be_larger_than_what_may_wait(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(0))
    write(store, [1])
    assert store.write("alice", [2], STATE)
    assert store.write("alice", [3], STATE, patience=20.0), "it waits for the one before"
    store.close(5)


def test_what_is_wanted_is_read_before_anything_is_written(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    file = write(store, [1]).file
    with held(store, tmp_path):
        store.write("alice", [2], STATE)
        store.fetch(file)
    assert isinstance(wait(store), Fetched)
    fetched = wait(store)
    assert isinstance(fetched, Fetched)
    assert fetched.file == file
    assert isinstance(wait(store), Written)
    store.close(5)


def test_what_cannot_be_read_for_the_moment_is_not_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    file = write(store, [1]).file
    with no_more_files():
        fetched = fetch(store, file)
    assert fetched.state is None
    assert not fetched.lost
    assert "Too many open files" in caplog.text
    assert fetch(store, file).state is not None
    store.close(5)


def test_a_write_that_fails_is_told_of_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    file = write(store, [1]).file
    blocking = tmp_path / "key" / f"{os.getpid()}.tmp"
    blocking.mkdir()
    assert store.write("alice", [2], STATE)
    assert wait(store) == Unwritten("alice", [2])
    assert not store.idle
    assert "could not write" in caplog.text
    assert "could not delete" in caplog.text
    blocking.rmdir()
    assert fetch(store, file).state is not None
    write(store, [2])
    assert store.bytes == 2 * file.nbytes
    store.close(5)


def test_what_the_disk_does_not_let_go_is_left_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    file = write(store, [1]).file
    file.path.unlink()
    file.path.mkdir()
    assert not list(store.index())
    store.bytes = file.nbytes
    store.delete(file)
    assert store.bytes == 0
    assert "could not delete" in caplog.text
    assert not fetch(store, file).lost
    write(store, [2])
    store.close(5)


async def test_a_model_is_served_where_no_folder_can_be_made(
    start_engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    engine = await start_engine(cache_disk=1 << 26, cache_dir=str(tmp_path / "file" / "kv"))
    assert (await ask(engine, PROMPT)).tokens[0]
    assert (await gauges(engine))['prefix_cache_bytes{tier="disk"}'] == 0
    assert "nothing is cached on disk" in caplog.text


async def test_a_damaged_state_is_told_of_in_the_servers_log(
    start_engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await start_engine(cache_disk=1 << 26)
    cold = await ask(engine, PROMPT)
    await engine.stop(grace=1.0)
    states = [file for file in (tmp_path / "kv").glob("*/*") if file.stat().st_size]
    assert states
    for file in states:
        file.write_bytes(file.read_bytes()[:-1])
    again = await start_engine(cache_disk=1 << 26)
    assert (await ask(again, PROMPT)).tokens == cold.tokens
    assert caplog.text.count("dropped the cached state") == len(states)


async def test_prompts_are_answered_though_the_disk_tier_has_gone(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine(cache_disk=1 << 26)
    cold = await ask(engine, PROMPT)
    await engine.stop(grace=1.0)
    again = await start_engine(cache_disk=1 << 26)
    (folder,) = (tmp_path / "kv").iterdir()
    shutil.rmtree(folder)
    folder.touch()
    assert (await ask(again, PROMPT)).tokens == cold.tokens
    assert (await ask(again, PROMPT[::-1])).tokens[0]


def test_what_other_keys_left_is_bounded(tmp_path: Path) -> None:
    foreign = tmp_path / "old" / "notes"
    for key, tokens in (("oldest", [1]), ("old", [2]), ("old", [3])):
        store = DiskStore(tmp_path, key, 1 << 20, SpareMemory(1 << 20))
        path = write(store, tokens).file.path
        os.utime(path, (tokens[0], tokens[0]))
        store.close(5)
    foreign.write_bytes(STATE.data)
    used = DiskStore(tmp_path, "used", 1 << 20, SpareMemory(1 << 20))
    write(used, [4])
    size = path.stat().st_size
    new = DiskStore(tmp_path, "new", 2 * size, SpareMemory(1 << 20))
    assert {len(list((tmp_path / key).iterdir())) for key in ("oldest", "new")} == {0}
    assert len(list((tmp_path / "old").iterdir())) == 3
    newer = DiskStore(tmp_path, "newer", size, SpareMemory(1 << 20))
    assert set((tmp_path / "old").iterdir()) == {path, foreign}
    last = DiskStore(tmp_path, "last", 0, SpareMemory(1 << 20))
    assert set((tmp_path / "old").iterdir()) == {foreign}
    assert len(list((tmp_path / "used").iterdir())) == 1
    for store in (used, new, newer, last):
        store.close(5)


def test_a_failed_write_is_tried_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskStore(tmp_path, "key", 1 << 20, SpareMemory(1 << 20))
    with no_more_files():
        store.write("alice", [1], STATE)
        assert isinstance(wait(store), Unwritten)
    assert not store.idle
    monkeypatch.setattr(kv_store, "RETRY", 0.0)
    assert store.idle
    store.close(5)
