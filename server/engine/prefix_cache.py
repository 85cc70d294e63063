"""Which token prefixes have been computed, and where their KV state lies: a radix tree over token ids.

An `Entry` is one run of tokens from a sequence's start whose state exists in one place: a sequence on the device, a
buffer in host memory, or a file. The tree holds the entries of all tiers, a root for each partition, so that no
lookup can cross from one partition into another. An edge carries a run of tokens; a node knows every entry whose
tokens run through it, so the deepest node that a prompt reaches names what can be reused and how much of it. Thousands
of entries may begin alike: a prompt looks at few of them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING

from server.engine.positions import TEXT, Positions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from server.engine.kv_store import StoredFile

EXAMINED = 64
"""Of the states in RAM and on disk that go on from a node, how many a prompt looks at: they save it the same tokens."""
ALL = 1 << 62
"""More tokens than there are."""
_COMPARED_AT_ONCE = 64


class Tier(IntEnum):
    """Where an entry's state lies, fastest first."""

    DEVICE = 0
    RAM = 1
    DISK = 2


@dataclass(eq=False, slots=True)
class Entry:
    """Tokens from a sequence's start whose KV state is, or is just being, computed.

    Attributes:
        partition: state is shared only inside it.
        tokens: what the entry stands for, the part still to be computed included.
        tier: where its state lies.
        ready: how many of the tokens are computed; reuse goes no further.
        stays: how many of them stay when it is closed, of a request that leaves nothing behind.
        hit: where those were that it began with when it was opened last (device tier).
        users: running sequences and pending copies that need it; above 0 it is never evicted.
        last_used: the tree's clock when it was last used.
        sequence: the device's sequence id (device tier).
        stored: the tier's own handle (RAM and disk tiers).
        persisted: how many of its tokens a file on disk has, too.
        from_disk: whether a state in RAM was read from disk and not used since.
        positions: where its tokens stand (device tier).
    """

    partition: str
    tokens: list[int]
    tier: Tier
    ready: int = 0
    stays: int = ALL
    hit: Tier | None = None
    users: int = 0
    last_used: int = 0
    sequence: int = -1
    stored: npt.NDArray[np.uint8] | StoredFile | None = None
    persisted: int = 0
    from_disk: bool = False
    positions: Positions = TEXT
    node: Node | None = field(default=None, repr=False)

    @property
    def private(self) -> bool:
        """Whether a request computes it that leaves nothing behind."""
        return self.stays < ALL

    @property
    def nbytes(self) -> int:
        """Bytes of its state in RAM or on disk."""
        return 0 if self.stored is None else self.stored.nbytes


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that begins as a prompt does.

    Attributes:
        length: tokens that both have in common.
        usable: how many of them can be reused now.
    """

    entry: Entry
    length: int
    usable: int


class Node:
    """One edge of the tree and the place it leads to.

    Attributes:
        entries: those whose tokens run through it, the newest last. device: the few of them whose state is on the
            device.
        ends: those whose tokens end here.
    """

    __slots__ = ("children", "device", "edge", "ends", "entries", "parent")

    def __init__(self, edge: list[int], parent: Node | None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[int, Node] = {}
        self.entries: dict[Entry, None] = {}
        self.device: set[Entry] = set()
        self.ends: set[Entry] = set()

    def take(self, entry: Entry) -> None:
        """Note that an entry runs through here."""
        self.entries[entry] = None
        if entry.tier is Tier.DEVICE:
            self.device.add(entry)


class PrefixCache:
    """The tree.

    Args:
        truncatable: whether a state can be cut at any token. Where it cannot (recurrent models, sliding windows), an
            entry is usable only as a whole.
    """

    def __init__(self, *, truncatable: bool = True) -> None:
        self.truncatable = truncatable
        self._roots: dict[str, Node] = {}
        self._clock = 0
        self._tiers: dict[Tier, OrderedDict[Entry, None]] = {tier: OrderedDict() for tier in Tier}

    @property
    def entries(self) -> set[Entry]:
        """The entries of all tiers."""
        return {entry for tier in self._tiers.values() for entry in tier}

    def of(self, tier: Tier) -> Collection[Entry]:
        """The entries of a tier, the least recently used first."""
        return self._tiers[tier]

    def insert(self, entry: Entry) -> None:
        """Add an entry with all of its tokens."""
        root = self._roots.setdefault(entry.partition, Node([], None))
        root.take(entry)
        self._tiers[entry.tier][entry] = None
        self._settle(entry, root)
        self._grow(entry, entry.tokens)
        self.touch(entry)

    def extend(self, entry: Entry, tokens: Sequence[int]) -> None:
        """Append tokens to an entry."""
        entry.tokens.extend(tokens)
        node = entry.node
        assert node
        if not node.children and len(node.entries) == 1 and node.parent:
            node.edge.extend(tokens)
        else:
            self._grow(entry, tokens)

    def truncate(self, entry: Entry, length: int) -> None:
        """Cut an entry to its first `length` tokens."""
        excess = len(entry.tokens) - length
        del entry.tokens[length:]
        entry.ready = min(entry.ready, length)
        while excess > 0:
            node = entry.node
            assert node and node.parent
            if excess < len(node.edge):
                node = self._split(node, len(node.edge) - excess)
                excess = 0
                below = next(iter(child for child in node.children.values() if entry in child.entries))
                self._leave(entry, below)
            else:
                excess -= len(node.edge)
                parent = node.parent
                self._leave(entry, node)
                node = parent
            self._settle(entry, node)

    def remove(self, entry: Entry) -> None:
        """Take an entry out."""
        node = entry.node
        while node:
            parent = node.parent
            self._leave(entry, node)
            node = parent
        entry.node = None
        self._tiers[entry.tier].pop(entry, None)
        if (root := self._roots.get(entry.partition)) and not root.entries:
            del self._roots[entry.partition]

    def touch(self, entry: Entry) -> None:
        """Note that an entry is used now."""
        self._clock += 1
        entry.last_used = self._clock
        if entry in (order := self._tiers[entry.tier]):
            order.move_to_end(entry)

    def use_with(self, entry: Entry, other: Entry) -> None:
        """Let an entry count as used when another one was, if that is later; `sort` its tier afterwards."""
        entry.last_used = max(entry.last_used, other.last_used)

    def sort(self, tier: Tier) -> None:
        """Bring a tier's entries into the order of their use."""
        self._tiers[tier] = OrderedDict.fromkeys(sorted(self._tiers[tier], key=lambda entry: entry.last_used))

    def match(self, partition: str, tokens: Sequence[int]) -> Iterator[Match]:
        """The entries that share a prefix with a prompt, longest common prefix first.

        All that are on the device or end on the way are among them, and of those that go on elsewhere the newest: a
        state that was just read from disk must be found in RAM. Where a state cannot be cut, only those that end on the
        way are of use.

        Args:
            partition: where to look; nothing outside is found.
            tokens: the prompt.
        """
        seen: set[Entry] = set()
        for node, depth, whole in reversed(self._path(partition, tokens)):
            found = list(node.ends) if whole else []
            if self.truncatable:
                found += [*node.device, *islice(reversed(node.entries), EXAMINED)]
            for entry in found:
                if entry not in seen:
                    seen.add(entry)
                    usable = self.truncatable or entry.ready == len(entry.tokens)
                    yield Match(entry, depth, min(depth, entry.ready) if usable else 0)

    def oldest(self, tier: Tier) -> Entry | None:
        """The least recently used entry of a tier that nothing needs, or None."""
        return next((entry for entry in self._tiers[tier] if entry.users == 0), None)

    def beginning_with(self, partition: str, tokens: Sequence[int]) -> Collection[Entry]:
        """All entries that begin with these tokens."""
        path = self._path(partition, tokens)
        return path[-1][0].entries if path and path[-1][1] == len(tokens) else ()

    def within(self, entry: Entry) -> list[Entry]:
        """The other entries with whose tokens this one begins."""
        path = self._path(entry.partition, entry.tokens)
        return [other for node, _, whole in path if whole for other in node.ends if other is not entry]

    def covered(self, entry: Entry, tier: Tier) -> bool:
        """Whether another entry of a tier has all that this one has computed, and will keep it."""
        n = entry.ready
        return any(
            other is not entry and other.tier is tier and other.ready >= n <= other.stays
            for other in self.beginning_with(entry.partition, entry.tokens[:n])
            if self.truncatable or len(other.tokens) == n
        )

    def check(self) -> None:
        """Assert the tree's invariants; an AssertionError is a bug here."""
        found: dict[Entry, list[int]] = {}
        for partition, root in self._roots.items():
            stack: list[tuple[Node, list[int]]] = [(root, [])]
            while stack:
                node, prefix = stack.pop()
                path = prefix + node.edge
                assert node.entries, "a node without entries"
                assert node is root or node.edge, "an edge without tokens"
                for first, child in node.children.items():
                    assert child.parent is node
                    assert child.edge[0] == first
                    assert child.entries.keys() <= node.entries.keys(), "an entry below a node that does not know it"
                    assert not child.entries.keys() & node.ends, "an entry beyond its end"
                    stack.append((child, path))
                for entry in node.entries:
                    assert entry.partition == partition, "an entry in a foreign partition"
                    if entry.node is node:
                        found[entry] = path
                assert node.device == {entry for entry in node.entries if entry.tier is Tier.DEVICE}
                assert node.ends == {entry for entry in node.entries if entry.node is node}
        assert found.keys() == self.entries
        for entry, path in found.items():
            assert entry.tokens == path, "an entry off its path"
            assert 0 <= entry.ready <= len(entry.tokens)
            assert entry.users >= 0

    def _path(self, partition: str, tokens: Sequence[int]) -> list[tuple[Node, int, bool]]:
        """The nodes along a prompt: each with the depth that the prompt shares, and whether it has the whole edge."""
        node = self._roots.get(partition)
        path: list[tuple[Node, int, bool]] = []
        depth = 0
        while node and depth < len(tokens):
            node = node.children.get(tokens[depth])
            if node:
                shared = common_prefix(node.edge, tokens, depth)
                depth += shared
                path.append((node, depth, shared == len(node.edge)))
                if shared < len(node.edge):
                    break
        return path

    def _grow(self, entry: Entry, tokens: Sequence[int]) -> None:
        """Lead an entry from its node on along further tokens."""
        node = entry.node
        assert node
        depth = 0
        while depth < len(tokens):
            child = node.children.get(tokens[depth])
            if child is None:
                child = node.children[tokens[depth]] = Node(list(tokens[depth:]), node)
            shared = common_prefix(child.edge, tokens, depth)
            if shared < len(child.edge):
                child = self._split(child, shared)
            child.take(entry)
            depth += shared
            node = child
        self._settle(entry, node)

    def _settle(self, entry: Entry, node: Node) -> None:
        """Let an entry end at a node."""
        if entry.node:
            entry.node.ends.discard(entry)
        node.ends.add(entry)
        entry.node = node

    def _split(self, node: Node, length: int) -> Node:
        """Cut a node's edge after `length` tokens; returns the new upper node."""
        assert node.parent
        upper = Node(node.edge[:length], node.parent)
        upper.entries, upper.device = dict(node.entries), set(node.device)
        node.parent.children[upper.edge[0]] = upper
        node.edge = node.edge[length:]
        node.parent = upper
        upper.children[node.edge[0]] = node
        return upper

    def _leave(self, entry: Entry, node: Node) -> None:
        node.entries.pop(entry, None)
        node.device.discard(entry)
        node.ends.discard(entry)
        if not node.entries and node.parent:
            del node.parent.children[node.edge[0]]


def common_prefix(edge: list[int], tokens: Sequence[int], start: int = 0) -> int:
    """How many of an edge's first tokens equal the prompt's from `start` on."""
    limit = min(len(edge), len(tokens) - start)
    at = 0
    while at < limit:
        step = min(_COMPARED_AT_ONCE, limit - at)
        if edge[at : at + step] != tokens[start + at : start + at + step]:
            while edge[at] == tokens[start + at]:
                at += 1
            return at
        at += step
    return limit
