"""What is measured when a model is first loaded, and when that is remembered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from server.engine import tuning
from server.engine.load_spec import LoadSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from server.engine.tuning import Tuning


class FakeContext:
    """Its clock tells how long its steps took: a row takes less of it by plain products in batches up to `crossing`."""

    def __init__(self, crossing: int) -> None:
        self.now = 0.0
        self.crossing = crossing
        self.can_choose_products = True
        self.kernels = None
        self.plain_up_to = 0
        self.shape = SimpleNamespace(batch=64, cells=64, sequences=1, unified=False, ubatch=64, flash=True)

    def decode(self, tokens: Sequence[int], *_: Any, generating: bool = False) -> bool:
        del generating
        n = len(tokens)
        plain = 8 <= n <= self.plain_up_to
        self.now += 0.001 + 0.0005 * n * ((0.7 if n <= self.crossing else 1.3) if plain else 1.0)
        return True

    def set_plain(self, widest: int) -> None:
        self.plain_up_to = widest

    def set_threads(self, decode: int, batch: int) -> None: ...
    def synchronize(self) -> None: ...
    def drop(self, sequence: int) -> bool:
        return True


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tuning]:
    """Tunes a context whose threads wait for other programs for a share of the time."""
    spec = LoadSpec(path="", name="fake", digest="fake", context=64, parallel=1, threads=1, state_dir=str(tmp_path))

    def run(context: Any, waiting: float = 0.0) -> Tuning:
        monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=lambda: context.now))
        monkeypatch.setattr(tuning, "waited_for_cpus", lambda: waiting * context.now)
        return tuning.tune(context, spec)

    return run


@pytest.mark.parametrize(("crossing", "widest"), [(0, 0), (8, 8), (20, 16)])
def test_plain_products_are_taken_up_to_where_they_are_faster(
    tuned: Callable[..., Tuning], crossing: int, widest: int
) -> None:
    context = FakeContext(crossing)
    assert tuned(context).plain_up_to == widest
    assert context.plain_up_to == widest


def test_what_was_measured_undisturbed_is_remembered(tuned: Callable[..., Tuning]) -> None:
    first = tuned(FakeContext(20), waiting=0.02)
    other = FakeContext(0)
    assert tuned(other) == first
    assert other.plain_up_to == first.plain_up_to == 16


def test_what_was_measured_beside_a_busy_program_is_not(tuned: Callable[..., Tuning], tmp_path: Path) -> None:
    tuned(FakeContext(20), waiting=0.5)
    assert not list(tmp_path.iterdir())
