"""The tiers below the device: states in RAM, and the same on disk. Each forgets what was least recently used first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from server.engine.kv_store import DiskStore, Fetched, StoredFile, Unwritten, Written
from server.engine.prefix_cache import Entry, PrefixCache, Tier
from server.engine.spare_memory import memory_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from server.engine.costs import Costs
    from server.engine.kv_file import State

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
        self._files: dict[Path, Entry] = {}
        for written in disk.index() if disk else ():
            self._add_file(written)

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files of the disk tier."""
        return self._disk.bytes if self._disk else 0

    # RAM

    def save(self, entry: Entry) -> Entry | None:
        """Keep in RAM what an entry has computed on the device, however large. None where RAM keeps nothing."""
        return self._keep(entry, self._save_state(entry.sequence)) if self._ram_limit else None

    def save_before_loss(self, entry: Entry) -> None:
        """Keep in RAM what an entry has computed, if it pays and RAM does not have it; on disk what RAM cannot hold."""
        if not self._ram_limit or entry.ready < WORTH_KEEPING or self._tree.covered(entry, Tier.RAM):
            return
        state = self._save_state(entry.sequence)
        if memory_of(state) <= self._ram_limit:
            self._keep(entry, state)
            self._shrink_ram()  # it goes itself where what is parked leaves it no room
        elif self._lacks_file(entry):
            self._write(entry, state)

    def forget(self, entry: Entry) -> None:
        """Drop a state that is of no more use in RAM, unless a parked sequence waits for it."""
        if entry.users == 0:
            self._release(entry)

    def _keep(self, entry: Entry, state: State) -> Entry:
        tokens = entry.tokens[: entry.ready]
        saved = Entry(entry.partition, tokens, Tier.RAM, ready=entry.ready, stored=state, persisted=entry.persisted)
        self._put_in_ram(saved)
        return saved

    def _put_in_ram(self, saved: Entry) -> None:
        self._tree.insert(saved)
        self.ram_bytes += _in_ram(saved)
        saved.users += 1  # not to be evicted for its own sake
        if self._tree.truncatable:
            self._drop_prefixes(saved)
        self._shrink_ram()
        saved.users -= 1

    def _shrink_ram(self) -> None:
        """Forget what was least recently used while there is more in RAM than may be."""
        while self.ram_bytes > self._ram_limit and (victim := self._tree.oldest(Tier.RAM)):
            self._evictions[Tier.RAM] += 1
            if self._lacks_file(victim):
                self._write(victim, self._state_of(victim))
            self._release(victim)

    # disk

    def fetch(self, entry: Entry) -> None:
        """Have a state read into RAM, where `collect` will find it; where many are on their way already, ask again."""
        assert self._disk
        assert isinstance(entry.stored, StoredFile)
        file = entry.stored
        others = sum(other.nbytes for other in self._fetching)
        if file not in self._fetching and (not others or others + file.nbytes <= self._disk.room):
            self._disk.fetch(file)
            entry.users += 1
            self._fetching[file] = entry

    def collect(self) -> bool:
        """Take in what the disk's thread has done. Returns whether a state that was waited for has come."""
        arrived = False
        for result in self._disk.results() if self._disk else ():
            match result:
                case Written():
                    self._add_file(result)
                case Unwritten():
                    self._take_back(result)
                case Fetched():
                    self._take_in(result)
                    arrived = True
        return arrived

    def tidy(self) -> None:
        """While nothing is to be computed: keep RAM within its limit, and write a state that the disk does not have.

        That is the least recently used one of the tier, if the disk is idle too.
        """
        self._shrink_ram()  # what came for a prompt that was then cancelled may be larger than all of it
        if self._disk and self._disk.idle and (oldest := next(self._unwritten(), None)):
            self._write(oldest, self._state_of(oldest))

    def shut_down(self, wait: float) -> None:
        """Write what is worth it to disk, the most recently used first, within `wait` seconds.

        Files that were used before it make way for it. All are stamped with the order of their use.
        """
        if not self._disk:
            return
        end = time.monotonic() + wait
        self._disk.drain(wait)
        self.collect()
        self._touch_files()
        for entry in self._tree.entries:
            entry.persisted = 0  # what was written then may have been deleted since
        kept = sorted([*self._tree.of(Tier.DISK), *self._unwritten()], key=_last_used, reverse=True)
        stamps = {entry: time.time() - rank for rank, entry in enumerate(kept)}
        for entry, used in stamps.items():
            if isinstance(entry.stored, StoredFile):
                self._disk.stamp(entry.stored, used)
        for entry, used in stamps.items():
            if isinstance(entry.stored, StoredFile):
                continue
            state = self._state_of(entry)
            if not self._make_room_on_disk(entry, state):
                continue
            if not self._write(entry, state, patience=end - time.monotonic(), stamp=used):
                break
        self._disk.close(max(0.0, end - time.monotonic()))

    def _make_room_on_disk(self, entry: Entry, state: State) -> bool:
        """Delete files that were used before an entry until its own fits. False where it does not."""
        assert self._disk
        room = self._disk.limit - self._disk.size_of(entry.partition, entry.tokens[: entry.ready], state)
        while self._disk.bytes + self._disk.waiting_bytes > room >= 0:
            victim = self._tree.oldest(Tier.DISK)
            if victim is None or victim.last_used > entry.last_used:
                return False
            self._evictions[Tier.DISK] += 1
            self._release(victim)
        return room >= 0

    def check(self) -> None:
        """Assert that the bytes in RAM are counted right."""
        stored = sum(map(_in_ram, self._tree.of(Tier.RAM)))
        assert stored == self.ram_bytes, "bytes in RAM miscounted"

    def _take_in(self, fetched: Fetched) -> None:
        """Move a state that was read from disk to RAM, where the prompt that waits for it finds it."""
        entry = self._fetching.pop(fetched.file)
        entry.users -= 1
        if fetched.lost:
            self._release(entry)
            return
        if fetched.state is None:
            entry.ready = 0  # nobody asks for it again, unless it is written anew
            return
        self._tree.touch(entry)
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
        if known := self._files.get(written.file.path):
            known.stored, known.ready = written.file, len(written.tokens)
        else:
            entry = Entry(written.partition, written.tokens, Tier.DISK, ready=len(written.tokens), stored=written.file)
            self._files[written.file.path] = entry
            self._tree.insert(entry)
            if written.last_used is not None:
                entry.last_used = written.last_used
                self._tree.sort(Tier.DISK)
            if self._tree.truncatable:
                self._drop_prefixes(entry)
        if self._disk.bytes > self._disk.limit:
            self._touch_files()
        while self._disk.bytes > self._disk.limit and (victim := self._tree.oldest(Tier.DISK)):
            self._evictions[Tier.DISK] += 1
            self._release(victim)

    def _touch_files(self) -> None:
        """Let files count as used when what they hold was, wherever that was found."""
        for entry in (*self._tree.of(Tier.DEVICE), *self._tree.of(Tier.RAM)):
            for other in self._tree.beginning_with(entry.partition, entry.tokens[: entry.persisted]):
                if other.tier is Tier.DISK:
                    self._tree.use_with(other, entry)
        self._tree.sort(Tier.DISK)

    def _write(self, entry: Entry, state: State, patience: float = 0.0, stamp: float | None = None) -> bool:
        """Hand a state to the disk's thread. False where too much waits there already, even after so many seconds."""
        assert self._disk
        tokens = entry.tokens[: entry.ready]
        if not self._disk.write(
            entry.partition, tokens, state, patience=patience, last_used=entry.last_used, stamp=stamp
        ):
            return False
        entry.persisted = entry.ready  # too large a state would only be copied again and again
        return True

    def _take_back(self, failed: Unwritten) -> None:
        """Note that the disk has yet to get a state, where it did not take it."""
        for entry in self._tree.beginning_with(failed.partition, failed.tokens):
            if entry.persisted == len(failed.tokens):
                entry.persisted = 0

    # both

    def _unwritten(self) -> Iterator[Entry]:
        """Idle states that the disk is to get, of each tier the least recently used first."""
        above = (*self._tree.of(Tier.RAM), *self._tree.of(Tier.DEVICE))
        return (entry for entry in above if entry.users == 0 and not entry.private and self._lacks_file(entry))

    def _lacks_file(self, entry: Entry) -> bool:
        """Whether the disk is to get a state; that it has it already is noted, so as not to be looked for again."""
        if self._disk is None or not entry.persisted < entry.ready >= WORTH_KEEPING:
            return False
        if self._tree.covered(entry, Tier.DISK):
            entry.persisted = entry.ready
            return False
        return True

    def _state_of(self, entry: Entry) -> State:
        return entry.stored if isinstance(entry.stored, np.ndarray) else self._save_state(entry.sequence)

    def _drop_prefixes(self, newer: Entry) -> None:
        """Remove the entries of a tier whose tokens a newer one of the same tier begins with."""
        for older in self._tree.within(newer):
            if older.tier is newer.tier and older.users == 0:
                self._release(older)

    def _release(self, entry: Entry) -> None:
        """Forget an entry and what is stored of it."""
        self._tree.remove(entry)
        if isinstance(entry.stored, StoredFile):
            assert self._disk
            del self._files[entry.stored.path]
            self._disk.delete(entry.stored)
            return
        self.ram_bytes -= _in_ram(entry)
        entry.stored = None


def _in_ram(entry: Entry) -> int:
    """Bytes of memory that an entry of the RAM tier takes."""
    assert isinstance(entry.stored, np.ndarray)
    return memory_of(entry.stored)


def _last_used(entry: Entry) -> int:
    return entry.last_used
