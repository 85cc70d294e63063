"""What goes into a batch: running generations first, pieces of prompts within what a step may last."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import pytest

from server.engine.costs import Costs
from server.engine.kv_cache import KvCache
from server.engine.kv_sources import Layout
from server.engine.proposals import Proposals
from server.engine.request import Generate
from server.engine.sampler import Sampler
from server.engine.scheduler import Limits, QueueFullError, Scheduler
from server.engine.sequence import Request, Sequence, Work
from server.engine.text import TextStream
from tests.engine.fake_device import FakeDevice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.engine.proposals import Proposer


class Bench:
    """A scheduler whose plans are carried out at once: every generation says 7."""

    def __init__(
        self,
        *,
        cells: int = 8000,
        parallel: int = 4,
        queue: int = 8,
        mixed: bool = True,
        prefill: float = 200.0,
        unified: bool = True,
        proposers: Iterable[Proposer] = (),
    ) -> None:
        device = FakeDevice(8, cells, unified=unified)
        costs = Costs()
        costs.prefill.learn(prefill, 1.0)
        layout = Layout(8, cells, unified, truncatable=True)
        self.cache = KvCache(device, layout, ram_limit=1 << 20, disk=None, costs=costs, clock=time.monotonic)
        limits = Limits(parallel=parallel, queue=queue, batch=512, mixed=mixed)
        self.scheduler = Scheduler(self.cache, limits, proposers)
        for width in (1, 2, 4):
            self.scheduler.times.learn(width, 0.07)
        self._device = device
        self._numbers = iter(range(1, 1000))

    def ask(self, length: int, *, priority: int = 0, first: int = 0) -> Sequence:
        number = next(self._numbers)
        tokens = [first or number, *range(length - 1)]
        ask = Generate(id=number, prompt=tokens, priority=priority)
        request = Request(ask, tokens, arrived=float(number))
        sequence = Sequence(request, 0, list(tokens), 100_000, Sampler(ask.sampling), TextStream())
        request.sequences.append(sequence)
        self.scheduler.submit(request)
        return sequence

    def step(self) -> list[Work]:
        works = self.scheduler.plan()
        for work in works:
            assert work.sequence.entry
            place, n = work.sequence.entry.sequence, len(work.tokens)
            assert self._device.decode(work.tokens, range(work.start, work.start + n), [place] * n, [])
            self.scheduler.commit(work, 0)
            if work.sequence.pending == 0:
                self.scheduler.append(work.sequence, 7)
        return works


def test_a_long_prompt_comes_in_pieces_beside_running_generations() -> None:
    bench = Bench()
    running = [bench.ask(5) for _ in range(3)]
    bench.step()
    newcomer = bench.ask(2000)
    while newcomer.generated == 0:
        works = bench.step()
        assert {work.sequence for work in works} == {*running, newcomer}
        piece = next(work for work in works if work.sequence is newcomer)
        assert len(piece.tokens) <= 0.5 * 200, "the step lasts longer than it may"
        assert len(piece.tokens) >= 16


def test_where_batches_are_not_mixed_prompts_and_generations_take_turns() -> None:
    bench = Bench(mixed=False)
    running = [bench.ask(5) for _ in range(3)]
    bench.step()
    newcomer = bench.ask(2000)
    steps = [bench.step() for _ in range(12)]
    for works, then in pairwise(steps):
        kinds = {work.sequence is newcomer for work in works}, {work.sequence is newcomer for work in then}
        assert kinds in (({True}, {False}), ({False}, {True}))
    assert all(len(works[0].tokens) <= 0.5 * 200 for works in steps if works[0].sequence is newcomer)
    assert all({work.sequence for work in works} == set(running) for works in steps if len(works) > 1)


def test_many_prompts_go_before_few_generations_as_long_as_these_may_wait() -> None:
    bench = Bench(mixed=False, parallel=8)
    bench.scheduler.limits = replace(bench.scheduler.limits, solo_gap=2.0)
    for _ in range(8):
        bench.ask(60)
    steps = [bench.step()]
    while len(steps[-1]) < 8:
        steps.append(bench.step())
    prompts = [sum(len(work.tokens) for work in works) > len(works) for works in steps]
    narrow = prompts.count(False) - 1
    assert narrow < 7, "each prompt was followed by a step of the few generations there were"
    stalls = [len(list(run)) for is_prompt, run in groupby(prompts[1:]) if is_prompt]
    assert max(stalls) * 60 / 200 <= 0.5 * 7


def test_small_prompts_come_one_after_another_before_the_generations_that_they_join() -> None:
    bench = Bench(mixed=False, unified=False, parallel=8)
    for _ in range(8):
        bench.ask(60)
    steps = [bench.step()]
    while len(steps[-1]) < 8:
        steps.append(bench.step())
    generating = [len(works) for works in steps if works[0].drafts == 0 and works[0].start >= 60]
    assert generating == [5, 8], "steps of few generations take nearly as long as those of all"
    assert steps.index(next(works for works in steps if len(works) == 5)) * 60 / 200 <= 1.2 + 60 / 200


def test_a_long_prompt_is_not_ended_in_the_pause_that_small_ones_may_take() -> None:
    bench = Bench(mixed=False, unified=False)
    running = [bench.ask(5) for _ in range(3)]
    while not all(sequence.decoding for sequence in running):
        bench.step()
    bench.ask(140)
    prompts = [any(len(work.tokens) > 1 for work in bench.step()) for _ in range(5)]
    assert prompts == [True, False, True, False, False]


@pytest.mark.parametrize(("rate", "pieces"), [(100, [384] * 2), (200, [512] * 2), (300, [1024, 976]), (1000, [2000])])
def test_alone_a_prompt_comes_in_pieces_that_are_computed_as_a_whole(rate: float, pieces: list[int]) -> None:
    bench = Bench(prefill=rate)
    bench.scheduler.limits = replace(bench.scheduler.limits, batch=2048)
    bench.ask(2000)
    assert [len(work.tokens) for _ in pieces for work in bench.step()] == pieces


@pytest.mark.parametrize(("rate", "piece"), [(100, 64), (60, 64), (40, 64), (20, 16), (2, 16)])
def test_a_piece_is_no_smaller_than_it_must_be(rate: float, piece: int) -> None:
    bench = Bench(prefill=rate)
    for _ in range(3):
        bench.ask(5)
    bench.step()
    newcomer = bench.ask(2000)
    assert [len(work.tokens) for work in bench.step() if work.sequence is newcomer] == [piece]


def test_no_inefficient_rest_is_left_of_a_prompt() -> None:
    bench = Bench(prefill=20)
    bench.ask(64 + 64 + 30)
    assert [len(work.tokens) for _ in range(2) for work in bench.step()] == [64, 94]


@pytest.mark.parametrize(("rest", "pieces"), [(12, [64, 76]), (16, [64, 80]), (17, [64, 64, 17])])
def test_beside_generations_a_last_piece_takes_a_small_rest_along(rest: int, pieces: list[int]) -> None:
    bench = Bench(prefill=100)
    for _ in range(3):
        bench.ask(5)
    bench.step()
    newcomer = bench.ask(128 + rest)
    steps = [bench.step() for _ in pieces]
    assert [len(work.tokens) for works in steps for work in works if work.sequence is newcomer] == pieces


def test_prompts_with_buffers_of_their_own_come_one_at_a_time() -> None:
    bench = Bench(parallel=8, mixed=False, unified=False)
    prompts = [bench.ask(20) for _ in range(3)]
    assert [[work.sequence for work in bench.step()] for _ in prompts[:2]] == [[prompts[0]], [prompts[1]]]


def test_alone_a_prompt_comes_in_larger_pieces() -> None:
    bench = Bench(prefill=100)
    bench.ask(2000)
    assert len(bench.step()[0].tokens) == 4 * 100 // 64 * 64


def test_the_oldest_prompt_is_read_first_and_priority_goes_before_age() -> None:
    bench = Bench(parallel=1)
    first, second, urgent = bench.ask(10), bench.ask(10), bench.ask(10, priority=1)
    assert bench.step()[0].sequence is urgent
    bench.scheduler.finish(urgent)
    assert bench.step()[0].sequence is first
    bench.scheduler.finish(first)
    assert bench.step()[0].sequence is second


@pytest.mark.parametrize("mixed", [True, False])
def test_a_small_prompt_does_not_wait_for_all_of_a_long_one(mixed: bool) -> None:
    bench = Bench(cells=32_000, mixed=mixed, unified=mixed)
    bench.ask(5)
    bench.step()
    long = bench.ask(3000)
    bench.step()
    newcomer = bench.ask(40)
    for _ in range(4):
        bench.step()
    assert newcomer.generated > 0
    assert long.generated == 0


@pytest.mark.parametrize("mixed", [True, False])
def test_small_prompts_that_keep_coming_leave_every_other_turn_to_a_long_one(mixed: bool) -> None:
    bench = Bench(cells=32_000, mixed=mixed, unified=mixed)
    long, steps = bench.ask(3000), 0
    bench.step()
    while long.generated == 0:
        newcomer = bench.ask(60, first=1000 + steps)
        while newcomer.generated == 0:
            bench.step()
            steps += 1
        bench.scheduler.finish(newcomer)
    assert steps <= 2 * 3000 / 64


def test_a_small_prompt_of_lower_priority_waits() -> None:
    bench = Bench(cells=32_000, mixed=False, unified=False)
    long = bench.ask(3000, priority=1)
    bench.step()
    newcomer = bench.ask(40)
    while long.generated == 0:
        bench.step()
    assert newcomer.generated == 0


def test_who_waits_for_a_prefix_does_not_hold_up_others() -> None:
    bench = Bench()
    reading, waiting, other = bench.ask(1000, first=1), bench.ask(1000, first=1), bench.ask(10)
    bench.step()
    bench.step()
    assert reading.entry
    assert waiting.entry is None
    assert other.entry


def test_a_full_queue_refuses_and_keeps_what_waits() -> None:
    bench = Bench(parallel=1, queue=2)
    bench.ask(5)
    bench.ask(5)
    with pytest.raises(QueueFullError):
        bench.ask(5)
    assert len(bench.scheduler.waiting) == 2


def test_when_cells_run_out_the_youngest_waits_in_ram_and_goes_on_later() -> None:
    bench = Bench(cells=100)
    old, young = bench.ask(30), bench.ask(30)
    while young.entry or not young.parked:
        bench.step()
        assert len(old.tokens) < 100
    said = list(young.tokens)
    assert bench.scheduler.preemptions == 1
    bench.scheduler.finish(old)
    bench.step()
    assert young.entry
    assert young.tokens[: len(said)] == said
    assert young.entry.ready >= len(said) - 1, "what was computed is computed again"
    bench.cache.check()


def test_a_prompt_that_finds_no_room_counts_as_no_hit_until_it_does() -> None:
    bench = Bench(cells=400)
    first = bench.ask(100, first=1)
    bench.step()
    bench.scheduler.finish(first)
    large = bench.ask(350)
    bench.step()
    waiting = bench.ask(150, first=1)
    for _ in range(5):
        bench.step()
    assert waiting.entry is None
    hits = bench.cache.hits.total()
    bench.scheduler.finish(large)
    bench.step()
    assert waiting.entry
    assert hits == 0
    assert bench.cache.hits.total() == bench.cache.tokens_saved.total() // 100 == 1


def test_a_prompt_that_finds_no_room_drives_nothing_out_in_vain() -> None:
    bench = Bench(cells=400)
    first = bench.ask(50, first=1)
    bench.step()
    bench.scheduler.finish(first)
    bench.ask(250)
    bench.step()
    waiting = bench.ask(200)
    for _ in range(3):
        bench.step()
    assert waiting.entry is None
    assert not bench.cache.evictions.total()
    assert max(match.usable for match in bench.cache.tree.match("", first.tokens)) == 50


class Guesses:
    """Proposes sevens, as many as it is asked for."""

    name = "guesses"
    cost = 0.0

    def could(self, sequence: Sequence) -> bool:
        return True

    def grade(self, sequence: Sequence) -> int:
        return 0

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        return [[7] * most for _, most in wanted]


def test_nobody_loses_their_place_for_the_sake_of_guesses() -> None:
    bench = Bench(cells=100, proposers=[Guesses()])
    sequences = [bench.ask(30), bench.ask(30)]
    drafted = 0
    while (free := 100 - bench.cache.device_tokens) >= 2:
        works = bench.step()
        drafted += sum(work.drafts for work in works)
        assert sum(len(work.tokens) for work in works) <= free
    assert drafted > 0
    assert bench.scheduler.running == sequences
    assert bench.scheduler.preemptions == 0


def test_what_is_proposed_for_all_together_fits_into_a_batch() -> None:
    bench = Bench(parallel=8, proposers=[Guesses()])
    for width in (8, 16, 32):
        bench.scheduler.times.learn(width, 0.07)
    sequences = [bench.ask(5) for _ in range(8)]
    while not all(sequence.decoding for sequence in sequences):
        bench.step()
    proposals = Proposals([Guesses()], bench.scheduler.times, batch=30, buffers_apart=False)
    found = proposals.for_all(sequences)
    assert 8 < 8 + sum(len(drafts) for drafts, _ in found.values()) <= 30


def test_generations_with_buffers_of_their_own_stay_neighbours_when_some_end() -> None:
    bench = Bench(parallel=8, mixed=False, unified=False)
    sequences = [bench.ask(20) for _ in range(8)]
    while not all(sequence.decoding for sequence in sequences):
        bench.step()
    for ended in (2, 5, 0):
        bench.scheduler.finish(sequences[ended])
        works = bench.step()
        places = [work.sequence.entry.sequence for work in works if work.sequence.entry]
        assert places == list(range(places[0], places[0] + len(places)))
    assert len(places) == 5
    bench.cache.check()
