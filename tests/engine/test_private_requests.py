"""Requests that leave nothing behind (`cache_prompt: false`) take nothing away either."""

from __future__ import annotations

import itertools
import time

import pytest

from server.engine.costs import Costs, Rate
from server.engine.kv_cache import KvCache, Wanted
from server.engine.kv_sources import Layout
from server.engine.prefix_cache import Entry
from tests.engine.fake_device import FakeDevice, next_token
from tests.engine.test_stress import CONTEXT, Machine, cold

PROMPT = [61, *(1 + 7 * i % 50 for i in range(60))]
LAYOUTS = pytest.mark.parametrize("unified", [True, False], ids=["unified", "split"])


class Bench(Machine):
    """An engine whose cache is looked at from outside: how much of a prompt it would reuse."""

    def __init__(self, *, unified: bool = True, truncatable: bool = True) -> None:
        super().__init__(unified=unified, truncatable=truncatable, disk=None, seed=1)
        self._numbers = itertools.count(1)

    def begin(self, prompt: list[int], tokens: int, *, private: bool, partition: str = "alice") -> int:
        """Submit a request; returns its number."""
        request = self.ask(next(self._numbers), partition, prompt, 1, tokens, private=private)
        self.runner.submit(request)
        return request.ask.id

    def choices(self, prompt: list[int], n: int, tokens: int) -> int:
        """Ask for several choices at once, leaving nothing behind; returns how many tokens were computed."""
        before = self.device.computed
        request = self.ask(next(self._numbers), "alice", prompt, n, tokens, private=True)
        self.runner.submit(request)
        self.finish(request.ask.id)
        return self.device.computed - before

    def finish(self, number: int) -> None:
        while number in self.runner.requests:
            self.step()
        self.cache.check()

    def run(self, prompt: list[int], tokens: int, *, private: bool) -> None:
        self.finish(self.begin(prompt, tokens, private=private))

    def reusable(self, prompt: list[int]) -> int:
        return max((match.usable for match in self.cache.tree.match("alice", prompt)), default=0)


def answered(prompt: list[int], tokens: int) -> list[int]:
    """A prompt with what is said after it, but for the last token, which nobody computes."""
    whole = list(prompt)
    for _ in range(tokens - 1):
        whole.append(next_token(whole))
    return whole


@LAYOUTS
def test_what_a_private_request_has_too_for_the_moment_is_kept_by_the_public_one(unified: bool) -> None:
    bench = Bench(unified=unified)
    public = bench.begin(PROMPT, 3, private=False)
    private = bench.begin(PROMPT, 30, private=True)
    bench.finish(public)
    bench.finish(private)
    assert bench.reusable(PROMPT) == len(PROMPT)


@LAYOUTS
def test_a_private_request_does_not_cut_what_it_begins_with(unified: bool) -> None:
    bench = Bench(unified=unified)
    bench.run(PROMPT, 8, private=False)
    known = answered(PROMPT, 8)
    assert bench.reusable(known) == len(known)
    bench.run(PROMPT, 8, private=True)
    assert bench.reusable(known) == len(known)


@LAYOUTS
@pytest.mark.parametrize("known", [0, 20, len(PROMPT)])
def test_private_choices_that_wait_for_a_place_begin_with_the_one_prefill(unified: bool, known: int) -> None:
    bench = Bench(unified=unified)
    if known:
        bench.run(PROMPT[:known], 1, private=False)
    computed = bench.choices(PROMPT, 8, 3)
    assert computed < len(PROMPT) + 8 * 4
    assert bench.reusable(PROMPT) == known
    assert all(bench.texts[2 if known else 1, index] == cold(PROMPT, 3) for index in range(8))


def test_a_private_request_that_loses_its_place_and_is_cancelled_leaves_what_it_began_with() -> None:
    bench = Bench()
    bench.run(PROMPT, 3, private=False)
    bench.begin([61, 3, 3], 50, private=False, partition="bob")
    bench.step()
    private = bench.begin([*PROMPT, *[9] * 30], 40, private=True)
    for _ in range(4):
        bench.step()
    assert bench.scheduler.preempt()
    bench.runner.cancel(private)
    assert bench.reusable(PROMPT) == len(PROMPT)


def test_a_private_request_that_loses_its_place_goes_on_and_says_the_same() -> None:
    bench = Bench()
    bench.begin([61, 3, 3], 50, private=False, partition="bob")
    private = bench.begin(PROMPT, 20, private=True)
    for _ in range(6):
        bench.step()
    assert bench.scheduler.preempt()
    bench.finish(private)
    assert bench.texts[private, 0] == cold(PROMPT, 20)
    assert bench.reusable(PROMPT) == 0


@LAYOUTS
def test_states_that_cannot_be_cut_outlive_a_private_next_turn(unified: bool) -> None:
    bench = Bench(unified=unified, truncatable=False)
    bench.run(PROMPT, 8, private=False)
    known = answered(PROMPT, 8)
    bench.run([*known, *[9] * 20], 8, private=True)
    assert bench.reusable([*known, 8]) == len(known)


@LAYOUTS
def test_a_last_message_can_be_edited_though_states_cannot_be_cut(unified: bool) -> None:
    bench = Bench(unified=unified, truncatable=False)
    bench.run(PROMPT, 8, private=False)
    known = answered(PROMPT, 8)
    bench.run([*known, *[9] * 20], 8, private=False)
    assert bench.reusable([*known, *[8] * 20]) == len(known) > len(PROMPT)
    assert len(known) + 28 < CONTEXT


def test_what_a_private_request_lends_takes_nothing_of_what_it_began_with() -> None:
    costs = Costs(prefill=Rate(1000.0), ram=Rate(1e9))
    layout = Layout(1, 200, unified=False, truncatable=True, copied_bytes=4)
    cache = KvCache(
        FakeDevice(1, 200, unified=False), layout, ram_limit=10_000, disk=None, costs=costs, clock=time.monotonic
    )

    def compute(tokens: list[int], *, private: bool = False) -> Entry:
        entry = cache.open(Wanted(tokens, "alice", private=private))
        assert isinstance(entry, Entry)
        cache.advance(entry, len(tokens) - entry.ready)
        return entry

    cache.close(compute(PROMPT))
    private = compute([*PROMPT, *[5] * 40], private=True)
    cache.close(private, lend=100)
    cache.close(compute([*PROMPT[:20], *[63] * 30]))
    cache.settle(private)
    cache.check()
    assert max(match.usable for match in cache.tree.match("alice", PROMPT)) == len(PROMPT)
