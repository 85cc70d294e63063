"""A model that is wanted: how long it waits for its next attempt after failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from server.models.resolve import ModelSource
from server.models.slot import LONGEST_BACKOFF, Slot

if TYPE_CHECKING:
    from pathlib import Path


def test_the_wait_grows_to_its_bound_and_no_further_however_many_attempts_fail(tmp_path: Path) -> None:
    slot = Slot(ModelSource("broken", tmp_path, "d"))
    ends: list[float] = []
    for _ in range(3000):
        before = time.monotonic()
        slot.failed("it is broken")
        ends.append(slot.retry_at - before)
    assert ends[0] < ends[1] < ends[2] < ends[3]
    assert LONGEST_BACKOFF <= ends[-1] < 2 * LONGEST_BACKOFF
