"""Sequences that are computed together lie side by side, with as few states moved as that takes."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.costs import Costs
from server.engine.kv_cache import KvCache, NotNow
from server.engine.kv_sources import Layout
from server.engine.neighbours import gathering_moves
from tests.engine.fake_device import FakeDevice

if TYPE_CHECKING:
    from server.engine.prefix_cache import Entry

PLACES = 8


@st.composite
def occupations(draw: st.DrawFn) -> tuple[set[int], set[int]]:
    together = draw(st.sets(st.integers(0, PLACES - 1)))
    others = draw(st.sets(st.integers(0, PLACES - 1)))
    return together, others - together


@given(occupations())
def test_they_end_side_by_side_and_no_place_is_taken_twice(occupation: tuple[set[int], set[int]]) -> None:
    together, others = occupation
    moves = gathering_moves(together, others, PLACES)
    assert {source for source, _ in moves} <= together
    assert not {target for _, target in moves} & together
    after = together - {source for source, _ in moves} | {target for _, target in moves}
    assert len(after) == len(together)
    assert not after or max(after) - min(after) == len(after) - 1


@pytest.mark.parametrize(
    ("together", "others", "moves"),
    [
        ({2, 3, 4}, {0}, []),
        ({0, 5}, {4}, [(5, 1)]),
        ({0, 5}, {1}, [(0, 4)]),
        ({0, 1, 3, 4, 5, 6, 7}, {2}, [(7, 2)]),
        ({5}, {0, 1, 2}, []),
        (set[int](), {0, 1}, []),
    ],
)
def test_the_fewest_are_moved_and_others_left_in_peace(
    together: set[int], others: set[int], moves: list[tuple[int, int]]
) -> None:
    assert gathering_moves(together, others, PLACES) == moves


def test_what_is_exchanged_keeps_its_own_state() -> None:
    source = random.Random(3)
    device = FakeDevice(PLACES, PLACES * 50, unified=False)
    layout = Layout(PLACES, PLACES * 50, unified=False, truncatable=True, copied_bytes=4)
    cache = KvCache(device, layout, ram_limit=0, disk=None, costs=Costs(), clock=time.monotonic)
    entries: list[Entry] = []
    for i in range(PLACES - 1):
        tokens = [i + 1] * source.randint(1, 40)
        entry = cache.open(tokens, "")
        assert not isinstance(entry, NotNow)
        entries.append(entry)
        if i % 3:  # the others have computed nothing yet
            device.decode(tokens, range(len(tokens)), [entry.sequence] * len(tokens), [])
            cache.advance(entry, len(tokens))
    for _ in range(50):
        chosen = source.sample(entries, source.randint(1, len(entries)))
        cache.gather(chosen)
        places = sorted(entry.sequence for entry in chosen)
        assert places == list(range(places[0], places[0] + len(places)))
        cache.check()
        for entry in entries:
            assert [token for token, _ in device.held[entry.sequence]] == entry.tokens[: entry.ready]
