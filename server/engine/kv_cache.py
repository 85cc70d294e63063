"""The KV state of all sequences, in three tiers: what the device's sequences hold, what lies in RAM and what on disk.

The scheduler opens an entry for a prompt, advances it as tokens are computed and closes it; what others can reuse of
it is decided here. States that leave the device go to RAM, the least recently used first, and come back where
restoring is cheaper than computing again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.engine.cells import Cells
from server.engine.kv_sources import WORTH_WAITING, Sources
from server.engine.kv_tiers import LowerTiers
from server.engine.neighbours import gathering_moves, moved_tokens, runs
from server.engine.positions import TEXT
from server.engine.prefix_cache import ALL, Entry, Match, PrefixCache, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from server.engine.costs import Costs
    from server.engine.kv_file import State
    from server.engine.kv_sources import Layout
    from server.engine.kv_store import DiskStore
    from server.engine.positions import Positions


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
class Wanted:
    """What a sequence is opened for.

    Attributes:
        tokens: of the prompt, and what was generated behind it. positions: theirs.
        partition: whose states it may begin with.
        private: whether nothing is to stay of it but what it begins with.
        again: whether it has lost its place before; getting its own state back is no hit.
    """

    tokens: Sequence[int]
    partition: str
    positions: Positions = TEXT
    private: bool = False
    again: bool = False


class KvCache:
    """The device tier, and the lower ones behind it.

    Args:
        memory: the device's sequences.
        ram_limit: bytes of state kept in RAM; 0 keeps none.
        disk: the disk tier, or None.
        clock: for measuring what restoring costs.

    Attributes:
        lower: the tiers of RAM and disk.
        hits, tokens_saved, evictions: counted since the start, by tier.
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
        self.hits: Counter[Tier] = Counter()
        self.tokens_saved: Counter[Tier] = Counter()
        self.evictions: Counter[Tier] = Counter()
        self._memory = memory
        self._clock = clock
        self._free = list(range(layout.sequences - 1, -1, -1))
        self._held: dict[int, Entry] = {}
        self._lost_apart = 0.0  # seconds, since what is computed together was last in one piece
        self._sources = Sources(self.tree, layout, costs)
        self.lower = LowerTiers(
            self.tree, memory.save_state, ram_limit=ram_limit, disk=disk, costs=costs, evictions=self.evictions
        )

    # opening, advancing and closing

    def open(self, wanted: Wanted, *, reuse: bool = True) -> Entry | NotNow:
        """Take a sequence for a prompt, with as much of it computed as can be reused. It is in use until `close`.

        With `reuse` False all of it is computed anew.
        """
        if not reuse:
            return self._open_from(None, wanted)
        best, pending = self._sources.find(wanted.tokens, wanted.partition, wanted.positions)
        if pending:
            return NotNow.WAIT
        if best and best.entry.tier is Tier.DISK:
            self.lower.fetch(best.entry)
            return NotNow.WAIT
        return self._open_from(best, wanted)

    def _open_from(self, best: Match | None, wanted: Wanted) -> Entry | NotNow:
        takes_over = best is not None and self._sources.may_take_over(best, private=wanted.private)
        if best and (takes_over or (not self._free and self._sources.is_only_idle(best))):
            entry = best.entry
            if best.usable < entry.stays < entry.ready:
                self._cut_to(entry, entry.stays)  # the rest was only lent
            if not entry.private and not (takes_over and self.layout.truncatable):
                self.lower.save_before_loss(entry)
            self._cut(entry, best.usable)
            self.tree.extend(entry, wanted.tokens[best.usable :])
            entry.positions = wanted.positions
        else:
            sequence = self._take_sequence(keep=best.entry if best else None)
            if sequence is None:
                return NotNow.FULL
            entry = Entry(
                wanted.partition, list(wanted.tokens), Tier.DEVICE, sequence=sequence, positions=wanted.positions
            )
            if best and not self._fill(entry, best):
                best = None
            self.tree.insert(entry)
            self._held[sequence] = entry
        entry.users += 1
        entry.stays = min(entry.ready, best.entry.stays if best else 0) if wanted.private else ALL
        entry.hit = None
        self.tree.touch(entry)
        if best:
            if not wanted.again:
                self._count_hit(best.entry, entry)
            self._leave_ram(best.entry, entry)
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

    def close(self, entry: Entry, *, lend: int = 0) -> None:
        """Give an entry back. What it has computed stays for others, unless another has it all.

        Of a private one that is what it began with, and where a state cannot be cut nothing.

        Args:
            lend: of how many tokens that are not to stay others may make use until `settle`.
        """
        entry.users -= 1
        self.tree.touch(entry)
        self._leave(entry, max(entry.stays, lend))

    def settle(self, entry: Entry) -> None:
        """End what `close` lent of an entry, if it is still there and nobody has taken it over."""
        if entry.private and entry.users == 0 and self._held.get(entry.sequence) is entry:
            self._leave(entry, entry.stays)

    def _leave(self, entry: Entry, length: int) -> None:
        """Leave an entry to others, of what is not to stay only the first `length` tokens; none that another has."""
        self._cut_to(entry, length)
        self.tree.truncate(entry, entry.ready)
        if entry.ready == 0 or self.tree.covered(entry, Tier.DEVICE):
            self._release(entry)

    def _cut_to(self, entry: Entry, length: int) -> None:
        """Cut what is not to stay of an entry, but for its first `length` tokens."""
        if length < entry.ready:
            self._cut(entry, length if self.layout.truncatable else 0)
        if entry.stays >= entry.ready:
            entry.stays = ALL

    def withdraw(self, entry: Entry) -> None:
        """Give back an entry that was opened for nothing: there is no room for the rest of it."""
        if entry.hit is not None:
            self.hits[entry.hit] -= 1
            self.tokens_saved[entry.hit] -= entry.ready
        self.close(entry)

    def checkpoint(self, entry: Entry) -> None:
        """Keep an entry's state as it is now in RAM: for models whose state cannot be cut later."""
        self.lower.save_before_loss(entry)

    def park(self, entry: Entry) -> Entry | None:
        """Take a running entry off the device and keep its state until `unpark`.

        None where it is to be computed again: where RAM keeps nothing, or nothing is to be kept of it.
        """
        if entry.private:
            self.close(entry)
            return None
        entry.users -= 1
        self.tree.truncate(entry, entry.ready)
        parked = self.lower.save(entry) if entry.ready else None
        if parked:
            parked.users += 1
        self._release(entry)
        return parked

    def unpark(self, parked: Entry, *, keep: bool) -> None:
        """Let go of a parked state, and with `keep` False forget it."""
        parked.users -= 1
        if not keep:
            self.lower.forget(parked)

    def gather(self, entries: Iterable[Entry], seconds: Callable[[int], float]) -> None:
        """Bring entries that are computed together into neighbouring buffers, where each has a buffer of its own.

        That is done once being computed apart has cost as much as moving them would.

        Args:
            seconds: what a step of so many sequences takes.
        """
        if self.layout.unified:
            return
        together = {entry.sequence: entry.ready for entry in entries}
        pieces = runs(together) if len(together) > 1 else []
        if len(pieces) < 2:
            self._lost_apart = 0.0
            return
        self._lost_apart += sum(map(seconds, pieces)) - seconds(len(together))
        others = {place: entry.ready for place, entry in self._held.items() if place not in together}
        moves = gathering_moves(together, others, self.layout.sequences)
        moved = moved_tokens(moves, together, others) * self.layout.copied_bytes
        if self._lost_apart >= self.costs.copy.seconds(moved):
            for source, target in moves:
                self._exchange(self._held[source], target)

    # between requests

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

    def check(self) -> None:
        """Assert that tree, ledger and tiers agree; an AssertionError is a bug here."""
        self.tree.check()
        device = [e for e in self.tree.entries if e.tier is Tier.DEVICE]
        assert {e.sequence: e for e in device} == self._held, "a sequence is not held by whom it should"
        sequences = [e.sequence for e in device]
        assert sorted(sequences + self._free) == list(range(self.layout.sequences)), "a sequence lost or held twice"
        self.lower.check()
        if self.layout.unified:
            self.cells.check()
            for entry in device:
                assert self.cells.held(entry.sequence) == entry.ready, "cells and tokens disagree"

    def _count_hit(self, source: Entry, entry: Entry) -> None:
        entry.hit = tier = Tier.DISK if source.from_disk else source.tier
        self.hits[tier] += 1
        self.tokens_saved[tier] += entry.ready

    def _leave_ram(self, source: Entry, entry: Entry) -> None:
        """Let a state that was reused leave RAM where the device has next to all of it now, or the disk has all."""
        elsewhere = source.from_disk or source.ready - entry.ready < WORTH_WAITING
        if source.tier is Tier.RAM and elsewhere and self.layout.truncatable and not entry.private:
            self.lower.forget(source)
        source.from_disk = False

    def _fill(self, entry: Entry, source: Match) -> bool:
        """Bring a source's state into a new entry's empty sequence."""
        if source.entry.tier is Tier.RAM:
            return self._restore(entry, source)
        giver, end = source.entry, entry.positions.at(source.usable)
        if self.layout.unified and self.layout.truncatable:
            self._memory.share(giver.sequence, entry.sequence, end)
            self.cells.share(giver.sequence, entry.sequence, source.usable)
        else:
            self._copy(giver, entry.sequence)
            self.cells.share(giver.sequence, entry.sequence, giver.ready)
            if giver.ready > source.usable:
                self._memory.drop(entry.sequence, end)
                self.cells.drop(entry.sequence, source.usable)
        entry.ready = source.usable
        self.tree.touch(giver)
        return True

    def _restore(self, entry: Entry, source: Match) -> bool:
        saved = source.entry
        if self.layout.unified and not self._make_room(saved.ready, keep=saved):
            return False
        start = self._clock()
        assert isinstance(saved.stored, np.ndarray)
        if not self._memory.restore_state(entry.sequence, saved.stored):
            self.lower.forget(saved)
            return False
        self.costs.ram.learn(saved.stored.nbytes, self._clock() - start)
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
            return self._take_place()
        finally:
            if keep:
                keep.users -= 1

    def _take_place(self) -> int:
        """A free place, the nearest to what runs: neighbouring buffers are computed together."""
        running = [place for place, entry in self._held.items() if entry.users]
        near = min(self._free, key=lambda place: min((abs(place - other) for other in running), default=0))
        self._free.remove(near)
        return near

    def _exchange(self, entry: Entry, place: int) -> None:
        """Bring an entry's state to another place, and what is there to the entry's."""
        left = entry.sequence
        other = self._held.get(place)
        state = self._memory.save_state(place) if other and other.ready else None
        self._memory.drop(place)
        if entry.ready:
            self._copy(entry, place)
        self._memory.drop(left)
        if state is not None and not self._memory.restore_state(left, state):
            raise RuntimeError("llama.cpp did not take back a state that it gave")
        self._held[place], entry.sequence = entry, place
        if other:
            self._held[left], other.sequence = other, left
        else:
            del self._held[left]
            self._free.remove(place)
            self._free.append(left)

    def _copy(self, entry: Entry, place: int) -> None:
        start = self._clock()
        self._memory.copy(entry.sequence, place)
        self.costs.copy.learn(entry.ready * self.layout.copied_bytes, self._clock() - start)

    def _make_room(self, cells: int, keep: Entry) -> bool:
        keep.users += 1
        try:
            if self.cells.free < cells and self.cells.free + self._idle_cells() < cells:
                return False  # what is idle would go for nothing
            while self.cells.free < cells:
                if not self._evict_device():
                    return False
            return True
        finally:
            keep.users -= 1

    def _idle_cells(self) -> int:
        """Cells that idle entries hold; those that they share count more than once."""
        return sum(self.cells.held(entry.sequence) for entry in self.tree.of(Tier.DEVICE) if entry.users == 0)

    def _evict_device(self) -> bool:
        victim = self.tree.oldest(Tier.DEVICE)
        if victim is None:
            return False
        self.evictions[Tier.DEVICE] += 1
        self.settle(victim)
        if self._held.get(victim.sequence) is victim:
            self.lower.save_before_loss(victim)
            self._release(victim)
        return True

    def _release(self, entry: Entry) -> None:
        """Free an entry's place on the device, and forget it."""
        self.tree.remove(entry)
        self._memory.drop(entry.sequence)
        self.cells.drop(entry.sequence)
        del self._held[entry.sequence]
        self._free.append(entry.sequence)

    def _cut(self, entry: Entry, length: int) -> None:
        if length < entry.ready:
            self._memory.drop(entry.sequence, entry.positions.at(length))
            self.cells.drop(entry.sequence, length)
            entry.persisted = min(entry.persisted, length)
        self.tree.truncate(entry, length)
