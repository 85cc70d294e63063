"""Sequences that are computed together lie side by side, with as few states moved as that takes."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.costs import Costs, Rate
from server.engine.kv_cache import KvCache, NotNow, Wanted
from server.engine.kv_sources import Layout
from server.engine.neighbours import gathering_moves, in_one_piece, runs
from tests.engine.fake_device import FakeDevice

if TYPE_CHECKING:
    from server.engine.prefix_cache import Entry

PLACES = 8


@st.composite
def occupations(draw: st.DrawFn) -> tuple[dict[int, int], dict[int, int]]:
    together = draw(st.dictionaries(st.integers(0, PLACES - 1), st.integers(0, 100), min_size=1))
    others = draw(st.dictionaries(st.integers(0, PLACES - 1), st.integers(0, 100)))
    return together, {place: tokens for place, tokens in others.items() if place not in together}


@given(occupations())
def test_they_end_side_by_side_and_no_place_is_taken_twice(occupation: tuple[dict[int, int], dict[int, int]]) -> None:
    together, others = occupation
    moves = gathering_moves(together, others, PLACES)
    assert {source for source, _ in moves} <= together.keys()
    assert not {target for _, target in moves} & together.keys()
    after = together.keys() - {source for source, _ in moves} | {target for _, target in moves}
    assert runs(after) == [len(together)]


@given(st.sets(st.integers(0, 20)))
def test_runs_are_those_between_gaps(places: set[int]) -> None:
    text = "".join("x" if place in places else " " for place in range(21))
    assert runs(places) == [len(run) for run in text.split()]


@pytest.mark.parametrize(
    ("together", "others", "moves"),
    [
        ({2: 9, 3: 9, 4: 9}, {0: 9}, []),
        ({0: 9, 5: 9}, {4: 9}, [(5, 1)]),
        ({0: 9, 5: 9}, {1: 9}, [(0, 4)]),
        ({0: 900, 5: 9}, {1: 9}, [(5, 1)]),
        ({0: 9, 2: 900}, {}, [(0, 1)]),
        ({0: 9, 1: 9, 3: 9, 4: 9, 5: 9, 6: 9, 7: 8}, {2: 9}, [(7, 2)]),
        ({5: 9}, {0: 9, 1: 9}, []),
    ],
)
def test_the_fewest_tokens_are_moved(
    together: dict[int, int], others: dict[int, int], moves: list[tuple[int, int]]
) -> None:
    assert gathering_moves(together, others, PLACES) == moves


def test_one_piece_is_neighbours_of_equal_length() -> None:
    assert in_one_piece({3: 1, 4: 1})
    assert not in_one_piece({3: 1, 5: 1})
    assert not in_one_piece({3: 1, 4: 5})


def test_nothing_is_moved_before_that_pays() -> None:
    device = FakeDevice(PLACES, PLACES * 50, unified=False)
    layout = Layout(PLACES, PLACES * 50, unified=False, truncatable=True, copied_bytes=1000)
    costs = Costs(copy=Rate(10_000.0))  # 10 tokens a second
    cache = KvCache(device, layout, ram_limit=0, disk=None, costs=costs, clock=lambda: 0.0)
    entries: list[Entry] = []
    for i in range(3):
        entry = cache.open(Wanted([i] * 30, ""))
        assert not isinstance(entry, NotNow)
        device.decode([i] * 30, range(30), [entry.sequence] * 30, [])
        cache.advance(entry, 30)
        entries.append(entry)
    apart = [min(entries, key=lambda each: each.sequence), max(entries, key=lambda each: each.sequence)]
    steps = 0
    while apart[1].sequence - apart[0].sequence > 1 and steps < 100:
        cache.gather(apart, lambda width: 0.5)
        steps += 1
    assert steps == 6  # two pieces take half a second longer than one; to move a state to a free place takes three


def test_what_is_exchanged_keeps_its_own_state() -> None:
    source = random.Random(3)
    device = FakeDevice(PLACES, PLACES * 50, unified=False)
    layout = Layout(PLACES, PLACES * 50, unified=False, truncatable=True, copied_bytes=4)
    cache = KvCache(device, layout, ram_limit=0, disk=None, costs=Costs(), clock=time.monotonic)
    entries: list[Entry] = []
    for i in range(PLACES - 1):
        tokens = [i + 1] * source.randint(1, 40)
        entry = cache.open(Wanted(tokens, ""))
        assert not isinstance(entry, NotNow)
        entries.append(entry)
        if i % 3:  # the others have computed nothing yet
            device.decode(tokens, range(len(tokens)), [entry.sequence] * len(tokens), [])
            cache.advance(entry, len(tokens))
    for _ in range(50):
        chosen = source.sample(entries, source.randint(1, len(entries)))
        cache.gather(chosen, lambda width: 1.0)
        assert runs([entry.sequence for entry in chosen]) == [len(chosen)]
        cache.check()
        for entry in entries:
            assert [token for token, _ in device.held[entry.sequence]] == entry.tokens[: entry.ready]
