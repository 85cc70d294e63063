"""The tiers below the device: states in RAM, and the same on disk. Each forgets what was least recently used first."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from server.engine.kv_store import DiskStore, Fetched, StoredFile, Written
from server.engine.prefix_cache import Entry, PrefixCache, Tier
from server.engine.spare_memory import memory_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from server.engine.costs import Costs
    from server.engine.kv_store import State

WORTH_KEEPING = 32
"""States of fewer tokens are computed again rather than kept in RAM or on disk."""


class LowerTiers:
    """RAM and disk.

    What RAM cannot hold goes to disk; what is read from disk comes back through RAM.

    Args:
        tree: the entries of all tiers.
        save_state: a copy of what an entry's sequence on the device holds.
        ram_limit: bytes of state kept in RAM; 0 keeps none.
        disk: the disk tier, or None.
        evictions: counts what is forgotten, by tier.
    """

    def __init__(
        self,
        tree: PrefixCache,
        save_state: Callable[[int], State],
        *,
        ram_limit: int,
        disk: DiskStore | None,
        costs: Costs,
        evictions: Counter[Tier],
    ) -> None:
        self.ram_bytes = 0
        self._tree = tree
        self._save_state = save_state
        self._ram_limit = ram_limit
        self._disk = disk
        self._costs = costs
        self._evictions = evictions
        self._fetching: dict[StoredFile, Entry] = {}
        for written in disk.index() if disk else ():
            self._add_file(written)

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files of the disk tier."""
        return self._disk.bytes if self._disk else 0

    # RAM

    def save(self, entry: Entry) -> Entry | None:
        """Keep in RAM what an entry has computed on the device. None where RAM keeps nothing."""
        if not self._ram_limit:
            return None
        saved = Entry(
            entry.partition,
            entry.tokens[: entry.ready],
            Tier.RAM,
            ready=entry.ready,
            stored=self._save_state(entry.sequence),
            persisted=entry.persisted,
        )
        self._put_in_ram(saved)
        return saved

    def save_before_loss(self, entry: Entry) -> None:
        """Keep in RAM what an entry has computed, if it is worth it and not there yet."""
        if entry.ready >= WORTH_KEEPING and not self._tree.covered(entry, Tier.RAM):
            self.save(entry)

    def forget(self, entry: Entry) -> None:
        """Drop a state that is of no more use in RAM, unless a parked sequence waits for it."""
        if entry.users == 0:
            self._release(entry)

    def _put_in_ram(self, saved: Entry) -> None:
        self._tree.insert(saved)
        self.ram_bytes += _in_ram(saved)
        saved.users += 1  # not to be evicted for its own sake
        if self._tree.truncatable:
            self._drop_prefixes(saved)
        while self.ram_bytes > self._ram_limit and (victim := self._tree.oldest(Tier.RAM)):
            self._evictions[Tier.RAM] += 1
            if self._disk and self._lacks_file(victim):
                self._disk.write(victim.partition, victim.tokens, self._state_of(victim))
            self._release(victim)
        saved.users -= 1

    # disk

    def fetch(self, entry: Entry) -> bool:
        """Have a state read into RAM, where `collect` will find it. False where too many wait to be read already."""
        assert self._disk
        assert isinstance(entry.stored, StoredFile)
        file = entry.stored
        if file in self._fetching:
            return True
        if not self._disk.fetch(file):
            return False
        entry.users += 1
        self._fetching[file] = entry
        return True

    def collect(self) -> bool:
        """Take in what the disk's thread has done. Returns whether a state that was waited for has come."""
        arrived = False
        for result in self._disk.results() if self._disk else ():
            if isinstance(result, Written):
                self._add_file(result)
            else:
                self._take_in(result)
                arrived = True
        return arrived

    def persist(self, *, limit: int = 1) -> int:
        """Write idle states that the disk does not have yet, oldest first, at most `limit`. Returns how many."""
        if not self._disk:
            return 0
        idle = (e for e in self._tree.entries if e.tier is not Tier.DISK and e.users == 0 and self._lacks_file(e))
        written = 0
        for entry in itertools.islice(sorted(idle, key=lambda e: e.last_used), limit):
            if not self._disk.write(entry.partition, entry.tokens[: entry.ready], self._state_of(entry)):
                break
            entry.persisted = entry.ready
            written += 1
        return written

    def shut_down(self, wait: float) -> None:
        """Write what is worth it to disk, within `wait` seconds."""
        if self._disk:
            self.persist(limit=len(self._tree.entries))
            self._disk.close(wait)

    def check(self) -> None:
        """Assert that the bytes in RAM are counted right."""
        stored = sum(_in_ram(entry) for entry in self._tree.entries if entry.tier is Tier.RAM)
        assert stored == self.ram_bytes, "bytes in RAM miscounted"

    def _take_in(self, fetched: Fetched) -> None:
        """Move a state that was read from disk to RAM, where the prompt that waits for it finds it."""
        entry = self._fetching.pop(fetched.file)
        entry.users -= 1
        self._tree.touch(entry)
        if fetched.state is None:
            self._release(entry)
            return
        self._costs.disk.learn(fetched.state.nbytes, fetched.seconds)
        self._put_in_ram(
            Entry(
                entry.partition,
                list(entry.tokens),
                Tier.RAM,
                ready=entry.ready,
                stored=fetched.state,
                persisted=entry.ready,
                from_disk=True,
            )
        )

    def _add_file(self, written: Written) -> None:
        assert self._disk
        entry = Entry(written.partition, written.tokens, Tier.DISK, ready=len(written.tokens), stored=written.file)
        same_place = self._tree.match(entry.partition, entry.tokens)
        if any(match.entry.tier is Tier.DISK and match.entry.stored == entry.stored for match in same_place):
            return
        self._tree.insert(entry)
        if self._tree.truncatable:
            self._drop_prefixes(entry)
        while self._disk.bytes > self._disk.limit and (victim := self._tree.oldest(Tier.DISK)):
            self._evictions[Tier.DISK] += 1
            self._release(victim)

    # both

    def _lacks_file(self, entry: Entry) -> bool:
        return entry.persisted < entry.ready >= WORTH_KEEPING and not self._tree.covered(entry, Tier.DISK)

    def _state_of(self, entry: Entry) -> State:
        return entry.stored if isinstance(entry.stored, np.ndarray) else self._save_state(entry.sequence)

    def _drop_prefixes(self, newer: Entry) -> None:
        """Remove the entries of a tier whose tokens a newer one of the same tier begins with."""
        for match in list(self._tree.match(newer.partition, newer.tokens)):
            older = match.entry
            same = older is not newer and older.tier is newer.tier and older.users == 0
            if same and len(older.tokens) == match.length:
                self._release(older)

    def _release(self, entry: Entry) -> None:
        """Forget an entry and what is stored of it."""
        self._tree.remove(entry)
        if isinstance(entry.stored, StoredFile):
            assert self._disk
            self._disk.delete(entry.stored)
            return
        self.ram_bytes -= _in_ram(entry)
        entry.stored = None


def _in_ram(entry: Entry) -> int:
    """Bytes of memory that an entry of the RAM tier takes."""
    assert isinstance(entry.stored, np.ndarray)
    return memory_of(entry.stored)
