"""What a worker counts: by Prometheus names, without a client library on the decoding thread."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.engine.messages import Histogram, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Distribution:
    """Counts observations by upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = list(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def export(self) -> Histogram:
        """As cumulative counts."""
        running = 0
        cumulative: list[int] = []
        for count in self._counts:
            running += count
            cumulative.append(running)
        return Histogram(list(self._bounds), cumulative[:-1], self._total, running)


def _seconds() -> Distribution:
    return Distribution(SECONDS)


@dataclass(slots=True)
class Metrics:
    """Everything counted since the worker started."""

    requests: Counter[str] = field(default_factory=Counter[str])
    """By how they ended."""
    prompt_tokens: int = 0
    computed_tokens: int = 0
    """Prompt tokens computed rather than reused."""
    generated_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    busy_seconds: float = 0.0
    """Time inside steps, llama.cpp's part and ours."""
    device_seconds: float = 0.0
    """Time inside llama.cpp alone."""
    own_cpu_seconds: float = 0.0
    """What the decoding thread computed in steps outside llama.cpp, without the time in which others had its core."""
    ttft: Distribution = field(default_factory=_seconds)
    inter_token: Distribution = field(default_factory=_seconds)
    queue_time: Distribution = field(default_factory=_seconds)
    batch_tokens: Distribution = field(default_factory=lambda: Distribution(TOKENS))
    batch_sequences: Distribution = field(default_factory=lambda: Distribution(TOKENS[:9]))

    def finish(self, usage: Usage, reason: str) -> None:
        """Count a request that is over."""
        self.requests[reason] += 1
        self.prompt_tokens += usage.prompt_tokens

    def counters(self) -> dict[str, float]:
        """Those that only grow."""
        ended = {f'requests_total{{reason="{reason}"}}': float(n) for reason, n in self.requests.items()}
        return ended | {
            "prompt_tokens_total": self.prompt_tokens,
            "prompt_tokens_computed_total": self.computed_tokens,
            "generated_tokens_total": self.generated_tokens,
            "drafted_tokens_total": self.drafted_tokens,
            "accepted_tokens_total": self.accepted_tokens,
            "steps_total": self.steps,
            "busy_seconds_total": self.busy_seconds,
            "device_seconds_total": self.device_seconds,
            "own_cpu_seconds_total": self.own_cpu_seconds,
        }

    def histograms(self) -> dict[str, Histogram]:
        """The distributions."""
        return {
            "time_to_first_token_seconds": self.ttft.export(),
            "inter_token_seconds": self.inter_token.export(),
            "queue_seconds": self.queue_time.export(),
            "batch_tokens": self.batch_tokens.export(),
            "batch_sequences": self.batch_sequences.export(),
        }
