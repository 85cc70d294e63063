"""Where a worker's threads run: each on a CPU of its own as long as there is one for every CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from server.engine.cores import cpu_set
from server.engine.request import Generate, Sampling

if TYPE_CHECKING:
    from server.engine.client import Engine
    from tests.engine.conftest import StartEngine

needs_cpus = pytest.mark.skipif(len(cpu_set()) < 2, reason="one CPU, or a system that does not tell")


async def bound_to(engine: Engine) -> list[int]:
    """The CPUs to which single threads of a worker are bound, after it has generated something."""
    ask = Generate(id=0, prompt=[3, 4, 5], max_tokens=4, sampling=Sampling(temperature=0), ignore_eos=True)
    async for _ in engine.generate(ask):
        pass
    masks = [os.sched_getaffinity(int(thread)) for thread in os.listdir(f"/proc/{engine.pid}/task")]
    return sorted(cpu for mask in masks if len(mask) == 1 for cpu in mask)


@needs_cpus
async def test_a_thread_for_every_cpu_is_bound_to_its_own_and_no_other_thread_is(start_engine: StartEngine) -> None:
    assert await bound_to(await start_engine(threads=len(cpu_set()))) == list(cpu_set())


@needs_cpus
async def test_fewer_threads_run_where_there_is_room(start_engine: StartEngine) -> None:
    assert await bound_to(await start_engine(threads=len(cpu_set()) - 1)) == []
