"""The KV state of all sequences, in three tiers: what the device's sequences hold, what lies in RAM and what on disk.

The scheduler opens an entry for a prompt, advances it as tokens are computed and closes it; what others can reuse of
it is decided here. States that leave the device go to RAM, what RAM cannot hold goes to disk, each tier's least
recently used first, and come back where restoring is cheaper than computing again.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from server.engine.cells import Cells
from server.engine.kv_store import DiskStore, Fetched, StoredFile, Written
from server.engine.positions import TEXT
from server.engine.prefix_cache import Entry, Match, PrefixCache, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from server.engine.costs import Costs
    from server.engine.positions import Positions

State = npt.NDArray[np.uint8]

WORTH_KEEPING = 32
"""States of fewer tokens are computed again rather than kept in RAM or on disk."""
WORTH_WAITING = 16
"""A prompt waits for another's prefill where that spares it at least so many tokens."""


class Memory(Protocol):
    """The device's sequences, as `server.engine.llama.context.Context` offers them."""

    def drop(self, sequence: int, start: int = 0) -> bool:
        """Forget a sequence's state from position `start` on. False where the model cannot drop a part."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Make an empty sequence `target` share (unified) or repeat (split) all of `source`."""
        ...

    def share(self, source: int, target: int, length: int) -> None:
        """In a unified context: make `target` share the first `length` positions of `source`."""
        ...

    def save_state(self, sequence: int) -> State:
        """A copy of a sequence's state."""
        ...

    def restore_state(self, sequence: int, data: State) -> bool:
        """Replace a sequence's state by a saved one. False where it does not fit; the sequence is then empty."""
        ...


class NotNow(Enum):
    """Why an entry cannot be opened yet."""

    WAIT = auto()
    """What it needs is being computed or read; look again at the next step."""
    FULL = auto()
    """Everything on the device is in use."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the device's KV buffer is divided.

    Attributes:
        unified: all sequences share `cells`; else each has `cells / sequences` of its own.
        buffer_bytes: size of one sequence's own buffer, which a copy moves (0 where unified).
    """

    sequences: int
    cells: int
    unified: bool
    truncatable: bool
    buffer_bytes: int = 0


class KvCache:
    """All three tiers.

    Args:
        memory: the device's sequences.
        ram_limit: bytes of state kept in RAM; 0 keeps none.
        disk: the disk tier, or None.
        clock: for measuring what restoring costs.
    """

    def __init__(
        self,
        memory: Memory,
        layout: Layout,
        *,
        ram_limit: int,
        disk: DiskStore | None,
        costs: Costs,
        clock: Callable[[], float],
    ) -> None:
        self.layout = layout
        self.tree = PrefixCache(truncatable=layout.truncatable)
        self.cells = Cells(layout.cells if layout.unified else 0)
        self.costs = costs
        self.ram_bytes = 0
        self.hits: Counter[Tier] = Counter()
        self.tokens_saved: Counter[Tier] = Counter()
        self.evictions: Counter[Tier] = Counter()
        self._memory = memory
        self._ram_limit = ram_limit
        self._disk = disk
        self._clock = clock
        self._free = list(range(layout.sequences - 1, -1, -1))
        self._fetching: dict[StoredFile, Entry] = {}
        for written in disk.index() if disk else ():
            self._add_file(written)

    # opening, advancing and closing

    def open(
        self, tokens: Sequence[int], partition: str, *, positions: Positions = TEXT, reuse: bool = True
    ) -> Entry | NotNow:
        """Take a sequence for a prompt, with as much of it computed as can be reused.

        At least the last token is left to compute, so that it gives logits. The entry is in use until `close`.
        `positions` are the tokens'. With `reuse` False all of it is computed anew.
        """
        if not reuse:
            return self._open_from(None, tokens, partition, positions)
        best, pending = self._sources(tokens, partition, positions)
        if pending and pending.length - (best.usable if best else 0) >= WORTH_WAITING:
            return NotNow.WAIT
        if best and best.entry.tier is Tier.DISK:
            return NotNow.WAIT if self._fetch(best.entry) else self._open_from(None, tokens, partition, positions)
        return self._open_from(best, tokens, partition, positions)

    def _open_from(
        self, best: Match | None, tokens: Sequence[int], partition: str, positions: Positions
    ) -> Entry | NotNow:
        if best and (self._may_take_over(best) or self._must_take_over(best)):
            entry = best.entry
            if not self._may_take_over(best):
                self._keep_in_ram(entry)
            self._cut(entry, best.usable)
            self.tree.extend(entry, tokens[best.usable :])
            entry.positions = positions
        else:
            sequence = self._take_sequence(keep=best.entry if best else None)
            if sequence is None:
                return NotNow.FULL
            entry = Entry(partition, list(tokens), Tier.DEVICE, sequence=sequence, positions=positions)
            if best and not self._fill(entry, best):
                best = None
            self.tree.insert(entry)
        entry.users += 1
        self.tree.touch(entry)
        if best:
            self._count_hit(best.entry, entry.ready)
        return entry

    def reserve(self, entry: Entry, tokens: int) -> bool:
        """Make room for `tokens` more of an entry, evicting what is idle. False where nothing is left to evict."""
        return not self.layout.unified or self._make_room(tokens, keep=entry)

    def advance(self, entry: Entry, tokens: int) -> None:
        """Note that the next `tokens` of an entry have been computed."""
        entry.ready += tokens
        if self.layout.unified:
            self.cells.take(entry.sequence, tokens)

    def append(self, entry: Entry, tokens: Sequence[int]) -> None:
        """Add generated tokens, which are still to be computed, to an entry."""
        self.tree.extend(entry, tokens)

    def forget_drafts(self, entry: Entry) -> None:
        """Drop from the device what was computed past the entry's own tokens: drafts that were not accepted."""
        self._memory.drop(entry.sequence, entry.positions.at(entry.ready))

    def close(self, entry: Entry, *, keep: bool = True) -> None:
        """Give an entry back. What it has computed stays for others, unless another has it all or `keep` is False."""
        entry.users -= 1
        self.tree.truncate(entry, entry.ready)
        self.tree.touch(entry)
        if not keep or entry.ready == 0 or self.tree.covered(entry, Tier.DEVICE):
            self._release(entry)

    def checkpoint(self, entry: Entry) -> None:
        """Keep an entry's state as it is now in RAM: for models whose state cannot be cut later."""
        if entry.ready >= WORTH_KEEPING:
            self._save_to_ram(entry)

    def park(self, entry: Entry) -> Entry | None:
        """Take a running entry off the device and keep its state until `unpark`. None where RAM keeps nothing."""
        entry.users -= 1
        self.tree.truncate(entry, entry.ready)
        parked = self._save_to_ram(entry) if self._ram_limit and entry.ready else None
        if parked:
            parked.users += 1
        self._release(entry)
        return parked

    def unpark(self, parked: Entry) -> None:
        """Let go of a parked state."""
        parked.users -= 1

    # between requests

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
        idle = (e for e in self.tree.entries if e.tier is not Tier.DISK and e.users == 0 and self._lacks_file(e))
        written = 0
        for entry in itertools.islice(sorted(idle, key=lambda e: e.last_used), limit):
            state = self._state_of(entry)
            if not self._disk.write(entry.partition, entry.tokens[: entry.ready], state):
                break
            entry.persisted = entry.ready
            written += 1
        return written

    def shut_down(self, wait: float) -> None:
        """Write what is worth it to disk, within `wait` seconds."""
        if self._disk:
            self.persist(limit=len(self.tree.entries))
            self._disk.close(wait)

    def drop_idle(self) -> None:
        """Forget everything on the device that is not in use."""
        while victim := self.tree.oldest(Tier.DEVICE):
            self._release(victim)

    @property
    def device_tokens(self) -> int:
        """Tokens whose state is on the device; shared ones count once where cells are shared."""
        if self.layout.unified:
            return self.cells.used
        return sum(entry.ready for entry in self.tree.entries if entry.tier is Tier.DEVICE)

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files of the disk tier."""
        return self._disk.bytes if self._disk else 0

    def check(self) -> None:
        """Assert that tree, ledger and tiers agree; an AssertionError is a bug here."""
        self.tree.check()
        device = [e for e in self.tree.entries if e.tier is Tier.DEVICE]
        sequences = [e.sequence for e in device]
        assert sorted(sequences + self._free) == list(range(self.layout.sequences)), "a sequence lost or held twice"
        stored = sum(e.stored.nbytes for e in self.tree.entries if isinstance(e.stored, np.ndarray))
        assert stored == self.ram_bytes, "bytes in RAM miscounted"
        if self.layout.unified:
            self.cells.check()
            for entry in device:
                assert self.cells.held(entry.sequence) == entry.ready, "cells and tokens disagree"

    def _count_hit(self, source: Entry, tokens: int) -> None:
        tier = Tier.DISK if source.from_disk else source.tier
        source.from_disk = False
        self.hits[tier] += 1
        self.tokens_saved[tier] += tokens

    # choosing a source

    def _sources(
        self, tokens: Sequence[int], partition: str, positions: Positions
    ) -> tuple[Match | None, Match | None]:
        """What saves the most time now, and what will have more once it is computed."""
        limit = len(tokens) - 1
        best: Match | None = None
        pending: Match | None = None
        saved = 0.0
        for match in self.tree.match(partition, tokens):
            usable = positions.whole(min(match.usable, limit))
            if not self.layout.truncatable and usable < match.usable:
                usable = 0
            candidate = Match(match.entry, min(match.length, limit), usable)
            if match.entry.tier is Tier.DEVICE and match.entry.users and candidate.length > match.entry.ready:
                pending = max(pending or candidate, candidate, key=lambda m: m.length)
            gain = self._gain(candidate)
            if gain > saved or (best and gain == saved and self._may_take_over(candidate)):
                best, saved = candidate, gain
        if not self.layout.truncatable:
            pending = None
        return best, pending

    def _gain(self, match: Match) -> float:
        """Seconds that reusing an entry saves, against computing its tokens."""
        if match.usable == 0:
            return 0.0
        computing = self.costs.prefill.seconds(match.usable)
        match match.entry.tier:
            case Tier.DEVICE:
                running = match.entry.users > 0
                if running and not self.layout.truncatable:
                    return 0.0
                moved = 0 if self.layout.unified or self._may_take_over(match) else self.layout.buffer_bytes
                return computing - self.costs.copy.seconds(moved)
            case Tier.RAM:
                return computing - self.costs.ram.seconds(_size(match.entry))
            case Tier.DISK:
                size = _size(match.entry)
                return computing - self.costs.disk.seconds(size) - self.costs.ram.seconds(size)

    def _may_take_over(self, match: Match) -> bool:
        """Whether a prompt may go on in the entry's own sequence, losing next to nothing that others could reuse."""
        entry = match.entry
        return entry.tier is Tier.DEVICE and entry.users == 0 and entry.ready - match.usable < WORTH_WAITING

    def _must_take_over(self, match: Match) -> bool:
        """Whether the entry's own sequence is the only one to be had."""
        idle = [e for e in self.tree.entries if e.tier is Tier.DEVICE and e.users == 0]
        return not self._free and idle == [match.entry]

    def _fill(self, entry: Entry, source: Match) -> bool:
        """Bring a source's state into a new entry's empty sequence."""
        if source.entry.tier is Tier.RAM:
            return self._restore(entry, source)
        giver, end = source.entry, entry.positions.at(source.usable)
        if self.layout.unified and self.layout.truncatable:
            self._memory.share(giver.sequence, entry.sequence, end)
            self.cells.share(giver.sequence, entry.sequence, source.usable)
        else:
            self._memory.copy(giver.sequence, entry.sequence)
            self.cells.share(giver.sequence, entry.sequence, giver.ready)
            if giver.ready > source.usable:
                self._memory.drop(entry.sequence, end)
                self.cells.drop(entry.sequence, source.usable)
        entry.ready = source.usable
        self.tree.touch(giver)
        return True

    def _restore(self, entry: Entry, source: Match) -> bool:
        saved = source.entry
        saved.users += 1
        try:
            if self.layout.unified and not self._make_room(saved.ready, keep=saved):
                return False
            start = self._clock()
            assert isinstance(saved.stored, np.ndarray)
            if not self._memory.restore_state(entry.sequence, saved.stored):
                return False
            self.costs.ram.learn(saved.stored.nbytes, self._clock() - start)
        finally:
            saved.users -= 1
        if source.usable < saved.ready:
            self._memory.drop(entry.sequence, entry.positions.at(source.usable))
        if self.layout.unified:
            self.cells.take(entry.sequence, source.usable)
        entry.ready = source.usable
        entry.persisted = min(saved.persisted, entry.ready)
        self.tree.touch(saved)
        return True

    # making room

    def _take_sequence(self, keep: Entry | None) -> int | None:
        if keep:
            keep.users += 1
        try:
            if not self._free and not self._evict_device():
                return None
            return self._free.pop()
        finally:
            if keep:
                keep.users -= 1

    def _make_room(self, cells: int, keep: Entry) -> bool:
        keep.users += 1
        try:
            while self.cells.free < cells:
                if not self._evict_device():
                    return False
            return True
        finally:
            keep.users -= 1

    def _evict_device(self) -> bool:
        victim = self.tree.oldest(Tier.DEVICE)
        if victim is None:
            return False
        self.evictions[Tier.DEVICE] += 1
        self._keep_in_ram(victim)
        self._release(victim)
        return True

    def _keep_in_ram(self, entry: Entry) -> None:
        """Save what an entry has computed before it is lost on the device, if it is worth it and not saved yet."""
        if self._ram_limit and entry.ready >= WORTH_KEEPING and not self.tree.covered(entry, Tier.RAM):
            self._save_to_ram(entry)

    def _release(self, entry: Entry) -> None:
        """Free an entry's place, whatever its tier, and forget it."""
        self.tree.remove(entry)
        match entry.tier:
            case Tier.DEVICE:
                self._memory.drop(entry.sequence)
                self.cells.drop(entry.sequence)
                self._free.append(entry.sequence)
            case Tier.RAM:
                self.ram_bytes -= _size(entry)
                entry.stored = None
            case Tier.DISK:
                assert self._disk
                assert isinstance(entry.stored, StoredFile)
                self._disk.delete(entry.stored)

    def _cut(self, entry: Entry, length: int) -> None:
        if length < entry.ready:
            self._memory.drop(entry.sequence, entry.positions.at(length))
            self.cells.drop(entry.sequence, length)
            entry.persisted = min(entry.persisted, length)
        self.tree.truncate(entry, length)

    # RAM and disk

    def _save_to_ram(self, entry: Entry) -> Entry | None:
        state = self._memory.save_state(entry.sequence)
        saved = Entry(entry.partition, entry.tokens[: entry.ready], Tier.RAM, ready=entry.ready, stored=state)
        saved.persisted = entry.persisted
        self._put_in_ram(saved)
        return saved

    def _put_in_ram(self, saved: Entry) -> None:
        self.tree.insert(saved)
        self.ram_bytes += _size(saved)
        saved.users += 1  # not to be evicted for its own sake
        if self.layout.truncatable:
            self._drop_prefixes(saved)
        while self.ram_bytes > self._ram_limit and (victim := self.tree.oldest(Tier.RAM)):
            self.evictions[Tier.RAM] += 1
            if self._disk and self._lacks_file(victim):
                self._disk.write(victim.partition, victim.tokens, self._state_of(victim))
            self._release(victim)
        saved.users -= 1

    def _drop_prefixes(self, newer: Entry) -> None:
        """Remove the entries of a tier whose tokens a newer one of the same tier begins with."""
        for match in list(self.tree.match(newer.partition, newer.tokens)):
            older = match.entry
            same = older is not newer and older.tier is newer.tier and older.users == 0
            if same and len(older.tokens) == match.length:
                self._release(older)

    def _lacks_file(self, entry: Entry) -> bool:
        return entry.persisted < entry.ready >= WORTH_KEEPING and not self.tree.covered(entry, Tier.DISK)

    def _state_of(self, entry: Entry) -> State:
        if isinstance(entry.stored, np.ndarray):
            return entry.stored
        return self._memory.save_state(entry.sequence)

    def _fetch(self, entry: Entry) -> bool:
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

    def _take_in(self, fetched: Fetched) -> None:
        """Move a state that was read from disk to RAM, where the prompt that waits for it finds it."""
        entry = self._fetching.pop(fetched.file)
        entry.users -= 1
        self.tree.touch(entry)
        if fetched.state is None:
            self._release(entry)
            return
        self.costs.disk.learn(fetched.state.nbytes, fetched.seconds)
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
        same_place = self.tree.match(entry.partition, entry.tokens)
        if any(match.entry.tier is Tier.DISK and match.entry.stored == entry.stored for match in same_place):
            return
        self.tree.insert(entry)
        if self.layout.truncatable:
            self._drop_prefixes(entry)
        while self._disk.bytes > self._disk.limit and (victim := self.tree.oldest(Tier.DISK)):
            self.evictions[Tier.DISK] += 1
            self._release(victim)


def _size(entry: Entry) -> int:
    stored = entry.stored
    if isinstance(stored, StoredFile):
        return stored.size
    return stored.nbytes if isinstance(stored, np.ndarray) else 0
