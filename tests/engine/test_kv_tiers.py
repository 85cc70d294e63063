"""RAM and disk behind the device: how much each may take, and what is kept where one of them refuses."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from server.engine import kv_store
from server.engine.costs import Costs
from server.engine.kv_store import DiskStore, StoredFile
from server.engine.kv_tiers import LowerTiers
from server.engine.prefix_cache import Entry, PrefixCache, Tier
from server.engine.spare_memory import SpareMemory
from tests.engine.test_engine import PROMPT, ask, gauges
from tests.engine.test_kv_store import held, no_more_files, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import pytest

    from server.engine.kv_file import State
    from tests.engine.conftest import StartEngine

LENGTH = 40


class Rig:
    """The lower tiers of a device whose states are as large as a test wants."""

    def __init__(self, folder: Path, *, ram: int = 1 << 20, disk: int = 1 << 20, room: int = 1 << 20) -> None:
        self.tree = PrefixCache()
        self.disk = DiskStore(folder, "key", disk, SpareMemory(2 * room))
        self.sizes: list[int] = []
        evictions: Counter[Tier] = Counter()
        self.lower = LowerTiers(
            self.tree, self._save_state, ram_limit=ram, disk=self.disk, costs=Costs(), evictions=evictions
        )

    def computed(self, token: int, size: int) -> Entry:
        """An idle sequence on the device."""
        entry = Entry("alice", [token] * LENGTH, Tier.DEVICE, ready=LENGTH, sequence=len(self.sizes))
        self.sizes.append(size)
        self.tree.insert(entry)
        return entry

    def tokens(self, tier: Tier) -> set[int]:
        """What a tier has."""
        return {entry.tokens[0] for entry in self.tree.entries if entry.tier is tier}

    def until(self, condition: Callable[[], bool]) -> None:
        """Take in what the disk's thread does until a condition holds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            self.lower.collect()
            time.sleep(0.001)
        self.lower.check()

    def persist(self, token: int) -> None:
        """Write the next state, which is to be this one."""
        self.lower.tidy()
        self.until(lambda: token in self.tokens(Tier.DISK))

    def persisted(self, tokens: Iterable[int], size: int = 1000) -> None:
        """Sequences that were computed and written, one after the other."""
        for token in tokens:
            self.computed(token, size)
            self.persist(token)

    def _save_state(self, sequence: int) -> State:
        return np.full(self.sizes[sequence], sequence, np.uint8)


def test_a_state_that_ram_cannot_hold_goes_to_disk_and_leaves_the_others_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ram=10_000)
    rig.lower.save_before_loss(rig.computed(1, 6000))
    rig.lower.save_before_loss(rig.computed(2, 20_000))
    assert rig.tokens(Tier.RAM) == {1}
    assert rig.lower.ram_bytes == 6000
    rig.until(lambda: rig.tokens(Tier.DISK) == {2})
    rig.lower.shut_down(5)


def test_a_parked_state_is_kept_however_large(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ram=10_000)
    parked = rig.lower.save(rig.computed(1, 20_000))
    assert parked
    assert parked.nbytes == 20_000
    rig.lower.shut_down(5)


def test_states_on_their_way_from_disk_are_bounded_and_all_come_at_last(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.persisted(range(3), 6000)
    first.lower.shut_down(5)
    second = Rig(tmp_path, room=13_000)
    files = list(second.tree.entries)
    with held(second.disk, tmp_path):
        for entry in files:
            second.lower.fetch(entry)
        assert sum(entry.users for entry in files) == 2
    wait(second.disk)
    second.until(lambda: len(second.tokens(Tier.RAM)) == 2)
    (last,) = (entry for entry in files if entry.tokens[0] not in second.tokens(Tier.RAM))
    second.lower.fetch(last)
    second.until(lambda: len(second.tokens(Tier.RAM)) == 3)
    second.lower.shut_down(5)


def test_a_state_that_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    entry = rig.computed(1, 1000)
    with no_more_files():
        rig.lower.tidy()
        assert entry.persisted
        rig.until(lambda: not entry.persisted)
    rig.lower.tidy()
    assert not entry.persisted, "it was copied again at once, for a disk that takes nothing"
    monkeypatch.setattr(kv_store, "RETRY", 0.0)
    rig.persist(1)
    rig.lower.shut_down(5)


def test_a_state_that_the_disk_cannot_hold_does_not_keep_others_from_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, disk=2000)
    rig.computed(1, 5000)
    rig.computed(2, 1000)
    rig.lower.tidy()
    rig.persist(2)
    assert rig.tokens(Tier.DISK) == {2}
    rig.lower.shut_down(5)


def test_at_the_end_what_was_used_last_is_written_first(tmp_path: Path) -> None:
    rig = Rig(tmp_path, room=0)
    for token in range(3):
        rig.computed(token, 1000)
    with held(rig.disk, tmp_path):
        rig.lower.shut_down(0.0)
    wait(rig.disk)
    rig.until(lambda: rig.tokens(Tier.DISK) == {2})


def test_files_of_what_is_used_on_the_device_outlive_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path, disk=2600)
    used = rig.computed(1, 1000)
    rig.persist(1)
    rig.computed(2, 1000)
    rig.persist(2)
    rig.tree.touch(used)
    rig.computed(3, 1000)
    rig.persist(3)
    assert rig.tokens(Tier.DISK) == {1, 3}
    rig.lower.shut_down(5)


def test_a_file_that_cannot_be_read_for_the_moment_stays_and_is_not_asked_for_again(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.computed(1, 1000)
    first.persist(1)
    first.lower.shut_down(5)
    second = Rig(tmp_path)
    (entry,) = second.tree.entries
    assert isinstance(entry.stored, StoredFile)
    with no_more_files():
        second.lower.fetch(entry)
        second.until(lambda: not entry.users)
    assert entry.stored.path.exists()
    assert [match.usable for match in second.tree.match("alice", [1] * LENGTH)] == [0]
    second.computed(1, 1000)
    second.lower.tidy()
    second.until(lambda: entry.ready == LENGTH)
    assert second.disk.bytes == entry.stored.path.stat().st_size
    second.lower.fetch(entry)
    second.until(lambda: second.tokens(Tier.RAM) == {1})
    second.lower.shut_down(5)


def test_what_is_written_at_the_end_keeps_to_the_limit_and_is_what_was_used_last(tmp_path: Path) -> None:
    first = Rig(tmp_path, disk=2600)
    for token in range(20):
        first.computed(token, 1000)
    first.persist(0)
    first.lower.shut_down(5)
    second = Rig(tmp_path, disk=2600)
    assert second.tokens(Tier.DISK) == {18, 19}
    assert second.disk.bytes == _size(tmp_path) <= 2600
    second.lower.shut_down(5)


def test_after_a_restart_what_was_used_last_still_goes_last(tmp_path: Path) -> None:
    first = Rig(tmp_path, disk=4000)
    entries = [first.computed(token, 1000) for token in range(3)]
    first.persist(0)
    first.tree.touch(entries[1])
    first.tree.touch(entries[0])
    first.lower.shut_down(5)
    second = Rig(tmp_path, disk=4000)
    assert [entry.tokens[0] for entry in second.tree.of(Tier.DISK)] == [2, 1, 0]
    second.computed(3, 1000)
    second.persist(3)
    assert second.tokens(Tier.DISK) == {1, 0, 3}
    second.lower.shut_down(5)


def test_a_state_that_was_read_counts_as_used_even_after_a_crash(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.persisted(range(2))
    long_ago, file = first.tree.of(Tier.DISK)
    for entry in (long_ago, file):
        assert isinstance(entry.stored, StoredFile)
        first.disk.stamp(entry.stored, entry.last_used)
    first.lower.fetch(long_ago)
    first.until(lambda: first.tokens(Tier.RAM) == {0})
    first.disk.close(5)  # without a last word
    second = Rig(tmp_path)
    assert [entry.tokens[0] for entry in second.tree.of(Tier.DISK)] == [1, 0]
    second.lower.shut_down(5)


def test_what_is_parked_takes_its_room_from_other_states(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ram=10_000)
    parked = rig.lower.save(rig.computed(1, 9000))
    assert parked
    parked.users += 1
    rig.lower.save_before_loss(rig.computed(2, 9000))
    assert rig.tokens(Tier.RAM) == {1}
    rig.until(lambda: rig.tokens(Tier.DISK) == {2})
    rig.lower.shut_down(5)


def test_a_state_too_large_for_ram_that_nobody_wants_any_more_does_not_stay_there(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ram=10_000)
    rig.lower.save_before_loss(rig.computed(1, 20_000))
    rig.until(lambda: rig.tokens(Tier.DISK) == {1})
    (entry,) = rig.tree.of(Tier.DISK)
    rig.lower.fetch(entry)
    rig.until(lambda: rig.tokens(Tier.RAM) == {1})
    rig.lower.tidy()
    assert rig.lower.ram_bytes == 0
    rig.lower.shut_down(5)


def test_a_state_whose_file_would_just_be_too_large_drives_no_other_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path, disk=5000)
    rig.persisted(range(2))
    rig.computed(2, 4950)
    rig.lower.shut_down(5)
    assert rig.tokens(Tier.DISK) == {0, 1}
    assert _size(tmp_path) == rig.disk.bytes


async def test_the_disk_tier_keeps_to_its_limit_whoever_asks_how_full_it_is(start_engine: StartEngine) -> None:
    limit = 200_000
    engine = await start_engine(cache_disk=limit)
    for first in range(8):
        await ask(engine, [first + 1, *PROMPT[1:]], 2)
    for _ in range(60):
        assert (await gauges(engine))['prefix_cache_bytes{tier="disk"}'] < 2 * limit
        await asyncio.sleep(0.05)
    counters = (await engine.stats()).counters
    assert counters['prefix_cache_evictions_total{tier="disk"}'] > 0


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("key/*"))
