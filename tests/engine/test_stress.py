"""Thousands of random requests: each answer is what a lone, cold request gets, and nothing is lost or left behind."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from server.engine.costs import Costs, Rate
from server.engine.kv_cache import KvCache
from server.engine.kv_sources import Layout
from server.engine.kv_store import DiskStore
from server.engine.prefix_cache import Tier
from server.engine.proposals import PromptLookup
from server.engine.request import Generate, Sampling
from server.engine.runner import Runner
from server.engine.sampler import Sampler
from server.engine.scheduler import Limits, QueueFullError, Scheduler
from server.engine.sequence import Request, Sequence
from server.engine.spare_memory import SpareMemory
from server.engine.speculation import Lookup
from server.engine.text import TextStream
from tests.engine.fake_device import END, VOCABULARY, FakeDevice, FakeVocab, next_token

if TYPE_CHECKING:
    from pathlib import Path

    from server.engine.messages import Delta

PARALLEL = 4
CONTEXT = 160
MARKERS = {"alice": 61, "bob": 62}


class Machine:
    """An engine around a fake device, with every limit small."""

    def __init__(self, *, unified: bool, truncatable: bool, disk: DiskStore | None, seed: int) -> None:
        sequences = PARALLEL + 4 if unified and truncatable else PARALLEL
        cells = 320 if unified else CONTEXT * sequences
        self.device = FakeDevice(sequences, cells, unified=unified)
        layout = Layout(sequences, cells, unified, truncatable, copied_bytes=0 if unified else 4)
        costs = Costs(prefill=Rate(1000.0), ram=Rate(1e9), disk=Rate(1e9))
        clock = itertools.count(0.0, 1e-6).__next__  # one slow moment of this machine would make it recompute all else
        self.cache = KvCache(self.device, layout, ram_limit=6000, disk=disk, costs=costs, clock=clock)
        mixed = unified == truncatable  # each way to batch meets two layouts, among them those of GPU and CPU
        limits = Limits(parallel=PARALLEL, queue=24, batch=96, smallest_chunk=16, mixed=mixed)
        self.scheduler = Scheduler(self.cache, limits, [PromptLookup()])
        context, vocab = cast("Any", self.device), cast("Any", FakeVocab())
        self.runner = Runner(context, vocab, self.scheduler, self.cache, helpers=1)
        self.random = random.Random(seed)
        self.texts: dict[tuple[int, int], str] = {}
        self.over: set[int] = set()

    def ask(
        self, number: int, partition: str, tokens: list[int], n: int, max_tokens: int, *, private: bool | None = None
    ) -> Request:
        """A request; one in ten leaves nothing behind, unless it is said whether this one does."""
        ask = Generate(
            id=number,
            prompt=tokens,
            partition=partition,
            n=n,
            max_tokens=max_tokens,
            sampling=Sampling(temperature=0),
            cache_prompt=self.random.random() < 0.9 if private is None else not private,
        )
        request = Request(ask, tokens, time.monotonic())
        limit = min(CONTEXT, len(tokens) + max_tokens)
        for index in range(n):
            lookup = Lookup(tokens) if self.cache.layout.truncatable else None
            sampler = Sampler(ask.sampling)
            request.sequences.append(
                Sequence(request, index, list(tokens), limit, sampler, TextStream(), lookup=lookup)
            )
        if not self.cache.layout.truncatable:
            request.checkpoints = sorted({len(tokens) // 2, len(tokens) - 1} - {0})
        return request

    def step(self) -> None:
        self.cache.lower.collect()
        steps = self.runner.step()
        for delta in steps.deltas if steps else ():
            self._take(delta)
        self.over.update(done.id for done in steps.done) if steps else None

    def _take(self, delta: Delta) -> None:
        key = (delta.id, delta.index)
        self.texts[key] = self.texts.get(key, "") + delta.text


def cold(tokens: list[int], max_tokens: int) -> str:
    """What a request gets that shares nothing with anybody."""
    tokens, text = list(tokens), ""
    for _ in range(min(max_tokens, CONTEXT - len(tokens))):
        token = next_token(tokens)
        if token == END:
            break
        tokens.append(token)
        text += FakeVocab().piece(token).decode()
    return text


def prompts(source: random.Random, partition: str, prefixes: list[list[int]]) -> list[int]:
    """A prompt that begins with its partition's marker and shares a prefix with others."""
    head = source.choice(prefixes)[: source.randint(1, 90)]
    tail = [source.randint(1, VOCABULARY - 4) for _ in range(source.randint(0, 30))]
    return [MARKERS[partition], *head, *tail]


@pytest.mark.parametrize("truncatable", [True, False], ids=["cut", "whole"])
@pytest.mark.parametrize("unified", [True, False], ids=["unified", "split"])
def test_random_requests_get_their_own_answers(tmp_path: Path, unified: bool, truncatable: bool) -> None:
    disk = DiskStore(tmp_path, "key", 20_000, SpareMemory(1000))
    machine = Machine(unified=unified, truncatable=truncatable, disk=disk, seed=7)
    source = machine.random
    prefixes = [[source.randint(1, VOCABULARY - 4) for _ in range(90)] for _ in range(5)]
    asked: dict[int, tuple[list[int], int, int]] = {}
    cancelled: set[int] = set()
    number = 0
    for _ in range(20_000):
        if number < 500 and source.random() < 0.12:
            partition = source.choice(["alice", "bob"])
            tokens, n, longest = (
                prompts(source, partition, prefixes),
                source.choice([1, 1, 1, 3]),
                source.randint(1, 60),
            )
            number += 1
            try:
                machine.runner.submit(machine.ask(number, partition, tokens, n, longest))
                asked[number] = (tokens, n, longest)
            except QueueFullError:
                pass
        if asked and source.random() < 0.03:
            victim = source.choice(list(asked))
            if victim not in machine.over:
                machine.runner.cancel(victim)
                cancelled.add(victim)
        machine.step()
        if source.random() < 0.1:
            machine.cache.check()
        if source.random() < 0.02:
            machine.cache.lower.tidy()
        if number == 500 and not machine.runner.requests:
            break
    assert not machine.runner.requests, "requests that never ended"
    for key, (tokens, n, longest) in asked.items():
        for index in range(n):
            text = machine.texts.get((key, index), "")
            expected = cold(tokens, longest)
            assert (text == expected) if key not in cancelled else expected.startswith(text)
    machine.cache.check()
    assert not machine.scheduler.running and not machine.scheduler.waiting
    assert all(entry.users == 0 for entry in machine.cache.tree.entries if entry.tier is not Tier.DISK)
    assert sum(machine.cache.hits.values()) > 100
    assert machine.cache.evictions[Tier.DEVICE] and machine.cache.evictions[Tier.RAM]
    machine.cache.drop_idle()
    machine.cache.check()
    assert not any(machine.device.held), "cells that nobody gave back"
    assert len(asked) > 300
    disk.close(5.0)


def test_a_request_whose_logits_are_no_numbers_fails_alone() -> None:
    machine = Machine(unified=False, truncatable=True, disk=None, seed=1)
    for number, first in ((1, 5), (2, 6)):
        machine.runner.submit(machine.ask(number, "alice", [61, first, 9], 1, 20))
    logits = machine.device.logits

    def overflowing(rows: int) -> npt.NDArray[np.float32]:
        found = logits(rows)
        found[0] = np.nan
        return found

    machine.device.logits = overflowing
    machine.step()
    machine.device.logits = logits
    (refused,) = machine.runner.take_refusals()
    assert (refused.status, refused.code) == (500, "engine_error")
    while machine.runner.requests:
        machine.step()
    assert machine.texts[3 - refused.id, 0] == cold([61, {1: 6, 2: 5}[refused.id], 9], 20)


def test_a_request_that_llama_cpp_has_no_room_for_is_told_so_at_last() -> None:
    machine = Machine(unified=True, truncatable=True, disk=None, seed=1)
    machine.runner.submit(machine.ask(1, "alice", [61, 5, 9], 1, 20))
    machine.device.capacity = 2
    for _ in range(3):
        machine.step()
    (refused,) = machine.runner.take_refusals()
    assert (refused.id, refused.status) == (1, 500)
    assert not machine.runner.requests
    machine.cache.check()


def test_who_gets_its_own_state_back_has_hit_nothing() -> None:
    machine = Machine(unified=False, truncatable=True, disk=None, seed=1)
    for number, first in ((1, 5), (2, 6)):
        machine.runner.submit(machine.ask(number, "alice", [first, *range(1, 60)], 1, 20, private=False))
    for _ in range(4):
        machine.step()
    assert machine.scheduler.preempt()
    while machine.runner.requests:
        machine.step()
    assert machine.scheduler.preemptions == 1
    assert not machine.cache.hits.total()
    assert not machine.cache.tokens_saved.total()


def test_a_prompt_begins_with_one_of_many_states_on_disk_that_begin_alike(tmp_path: Path) -> None:
    beginning = [1 + 7 * i % 50 for i in range(60)]
    disk = DiskStore(tmp_path, "key", 1 << 30, SpareMemory(1 << 20))
    for i in range(300):
        tokens = [*beginning, 1 + i % 60, 1 + i // 60, *range(1, 30)]
        assert disk.write("alice", tokens, np.asarray(tokens, np.int32).view(np.uint8), patience=20.0)
    disk.close(20.0)
    disk = DiskStore(tmp_path, "key", 1 << 30, SpareMemory(1 << 20))
    machine = Machine(unified=True, truncatable=True, disk=disk, seed=1)
    assert len(machine.cache.tree.of(Tier.DISK)) == 300
    prompt = [*beginning, 63, 62, 61]
    machine.runner.submit(machine.ask(1, "alice", prompt, 1, 5, private=False))
    deadline = time.monotonic() + 60
    while machine.runner.requests:
        assert time.monotonic() < deadline, "it waits for ever"
        machine.step()
    assert machine.texts[1, 0] == cold(prompt, 5)
    assert machine.cache.hits[Tier.DISK] == 1
    disk.close(5.0)
