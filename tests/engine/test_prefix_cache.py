"""The radix tree against a plain list of token lists, over random operations."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engine.prefix_cache import EXAMINED, Entry, PrefixCache, Tier, common_prefix

tokens = st.lists(st.integers(0, 2), max_size=12)
partitions = st.sampled_from(["alice", "bob"])


def shared(a: list[int], b: list[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


class Tree(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixCache()
        self.model: list[Entry] = []

    @rule(partition=partitions, tokens=tokens, tier=st.sampled_from(Tier), ready=st.integers(0, 12))
    def insert(self, partition: str, tokens: list[int], tier: Tier, ready: int) -> None:
        entry = Entry(partition, list(tokens), tier, ready=min(ready, len(tokens)))
        self.tree.insert(entry)
        self.model.append(entry)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), more=tokens)
    def extend(self, data: st.DataObject, more: list[int]) -> None:
        entry = data.draw(st.sampled_from(self.model))
        expected = entry.tokens + more
        self.tree.extend(entry, more)
        assert entry.tokens == expected

    @precondition(lambda self: self.model)
    @rule(data=st.data(), share=st.floats(0, 1))
    def truncate(self, data: st.DataObject, share: float) -> None:
        entry = data.draw(st.sampled_from(self.model))
        length = int(len(entry.tokens) * share)
        expected = entry.tokens[:length]
        self.tree.truncate(entry, length)
        assert entry.tokens == expected

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.model))
        self.model.remove(entry)
        self.tree.remove(entry)

    @rule(partition=partitions, prompt=tokens)
    def match(self, partition: str, prompt: list[int]) -> None:
        found = {m.entry: m for m in self.tree.match(partition, prompt)}
        lengths = [m.length for m in self.tree.match(partition, prompt)]
        assert lengths == sorted(lengths, reverse=True)
        for entry in self.model:
            expected = shared(entry.tokens, prompt) if entry.partition == partition else 0
            assert (found[entry].length if entry in found else 0) == expected
            if entry in found:
                assert found[entry].usable == min(expected, entry.ready)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), tier=st.sampled_from(Tier))
    def covered(self, data: st.DataObject, tier: Tier) -> None:
        entry = data.draw(st.sampled_from(self.model))
        others = [other for other in self.model if other is not entry and other.partition == entry.partition]
        expected = any(
            other.tier is tier and other.ready >= entry.ready == shared(other.tokens, entry.tokens[: entry.ready])
            for other in others
        )
        assert self.tree.covered(entry, tier) == (expected and entry.ready > 0)
        within = [other for other in others if other.tokens and other.tokens == entry.tokens[: len(other.tokens)]]
        assert set(self.tree.within(entry)) == set(within)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        self.tree.touch(data.draw(st.sampled_from(self.model)))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def use_with(self, data: st.DataObject) -> None:
        entry, other = (data.draw(st.sampled_from(self.model)) for _ in range(2))
        self.tree.use_with(entry, other)
        self.tree.sort(entry.tier)

    @invariant()
    def holds_together(self) -> None:
        self.tree.check()
        assert self.tree.entries == set(self.model)
        for tier in Tier:
            uses = [entry.last_used for entry in self.tree.of(tier)]
            assert uses == sorted(uses)


Tree.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestTree = Tree.TestCase


def test_common_prefix_longer_than_one_comparison() -> None:
    edge = list(range(200))
    assert common_prefix(edge, [9, *range(150), 7, 8], 1) == 150
    assert common_prefix(edge, edge) == 200


def test_a_state_that_cannot_be_cut_is_used_only_whole() -> None:
    tree = PrefixCache(truncatable=False)
    whole = Entry("", [1, 2, 3], Tier.RAM, ready=3)
    tree.insert(whole)
    assert [m.usable for m in tree.match("", [1, 2, 3, 4])] == [3]
    assert not any(m.usable for m in tree.match("", [1, 2, 4]))


def test_of_thousands_that_begin_alike_a_prompt_looks_at_few() -> None:
    tree = PrefixCache()
    beginning = list(range(40))
    for i in range(3000):
        tree.insert(Entry("", [*beginning, i, *beginning], Tier.DISK, ready=81))
    short, running = Entry("", beginning, Tier.RAM, ready=40), Entry("", [*beginning, 9, 9], Tier.DEVICE, ready=42)
    tree.insert(short)
    tree.insert(running)
    matches = list(tree.match("", [*beginning, 7, 7]))
    assert [match.length for match in matches[:2]] == [41, 40]
    assert len(matches) <= 2 * EXAMINED + 2
    assert {short, running} <= {match.entry for match in matches}


def test_the_least_recently_used_entry_that_nothing_needs_goes_first() -> None:
    tree = PrefixCache()
    first, second = (Entry("", [i], Tier.DEVICE, ready=1) for i in range(2))
    tree.insert(first)
    tree.insert(second)
    assert tree.oldest(Tier.DEVICE) is first
    tree.touch(first)
    assert tree.oldest(Tier.DEVICE) is second
    second.users = 1
    assert tree.oldest(Tier.DEVICE) is first
    assert tree.oldest(Tier.RAM) is None
