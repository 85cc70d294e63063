"""From which computed state a prompt is best begun: the one that saves the most time, wherever it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.engine.prefix_cache import Match, PrefixCache, Tier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.costs import Costs
    from server.engine.positions import Positions

WORTH_WAITING = 16
"""A prompt waits for another's prefill where that spares it at least so many tokens."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the device's KV buffer is divided.

    Attributes:
        unified: all sequences share `cells`; else each has `cells / sequences` of its own.
        copied_bytes: what a token's state adds to a copy from sequence to sequence (0 where unified).
    """

    sequences: int
    cells: int
    unified: bool
    truncatable: bool
    copied_bytes: int = 0

    @property
    def longest(self) -> int:
        """Tokens that one sequence can hold."""
        return self.cells if self.unified else self.cells // self.sequences


class Sources:
    """Compares what there is by what it saves.

    Args:
        tree: the entries of all tiers.
    """

    def __init__(self, tree: PrefixCache, layout: Layout, costs: Costs) -> None:
        self._tree = tree
        self._layout = layout
        self._costs = costs

    def find(self, tokens: Sequence[int], partition: str, positions: Positions) -> tuple[Match | None, Match | None]:
        """Look for what a prompt can begin with.

        At least its last token is left to compute, so that it gives logits.

        Returns:
            What saves the most time now, and what will save so much more once it is computed that it is worth waiting
            for; None each where there is nothing.
        """
        limit = len(tokens) - 1
        best: Match | None = None
        pending: Match | None = None
        saved = 0.0
        for match in self._tree.match(partition, tokens):
            shared = min(match.length, limit)
            worth_waiting = shared - (best.usable if best else 0) >= WORTH_WAITING
            if self._costs.prefill.seconds(shared) < saved and not worth_waiting:
                break  # those that follow share even less
            usable = positions.whole(min(match.usable, limit))
            if not self._layout.truncatable and usable < match.usable:
                usable = 0
            candidate = Match(match.entry, shared, usable)
            if match.entry.tier is Tier.DEVICE and match.entry.users and candidate.length > match.entry.ready:
                pending = max(pending or candidate, candidate, key=lambda m: m.length)
            gain = self._gain(candidate)
            if gain > saved or (best and gain == saved and self.may_take_over(candidate)):
                best, saved = candidate, gain
        if pending and pending.length - (best.usable if best else 0) < WORTH_WAITING:
            pending = None
        return best, pending if self._layout.truncatable else None

    def _gain(self, match: Match) -> float:
        """Seconds that reusing an entry saves, against computing its tokens."""
        if match.usable == 0 or match.entry.ready > self._layout.longest:
            return 0.0
        computing = self._costs.prefill.seconds(match.usable)
        match match.entry.tier:
            case Tier.DEVICE:
                running = match.entry.users > 0
                if running and not self._layout.truncatable:
                    return 0.0
                moved = 0 if self.may_take_over(match) else match.entry.ready * self._layout.copied_bytes
                return computing - self._costs.copy.seconds(moved)
            case Tier.RAM:
                return computing - self._costs.ram.seconds(match.entry.nbytes)
            case Tier.DISK:
                size = match.entry.nbytes
                return computing - self._costs.disk.seconds(size) - self._costs.ram.seconds(size)

    def may_take_over(self, match: Match, *, private: bool = False) -> bool:
        """Whether a prompt may go on in the entry's own sequence, losing next to nothing that others could reuse.

        A private one, which is cut back at its end to what it began with, must lose nothing.
        """
        entry = match.entry
        if entry.tier is not Tier.DEVICE or entry.users:
            return False
        lost = entry.ready - match.usable
        return lost == 0 and self._layout.truncatable if private else lost < WORTH_WAITING

    def is_only_idle(self, match: Match) -> bool:
        """Whether no other sequence on the device is idle."""
        return [e for e in self._tree.of(Tier.DEVICE) if e.users == 0] == [match.entry]
