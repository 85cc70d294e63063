"""What computing a token and moving a byte cost on this machine, learned while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Rate:
    """A rate per second, smoothed over its measurements; `guess` stands in before the first."""

    guess: float
    weight: float = 0.2
    measured: float | None = None

    @property
    def value(self) -> float:
        """The rate as known now."""
        return self.guess if self.measured is None else self.measured

    def learn(self, amount: float, seconds: float) -> None:
        """Take in that `amount` took `seconds`."""
        if amount > 0 and seconds > 0:
            rate = amount / seconds
            self.measured = rate if self.measured is None else self.measured + self.weight * (rate - self.measured)

    def seconds(self, amount: float) -> float:
        """How long `amount` will take."""
        return amount / self.value


@dataclass(slots=True)
class Costs:
    """The rates that decide between restoring a state and computing it again."""

    prefill: Rate = field(default_factory=lambda: Rate(100.0))
    """Prompt tokens per second."""
    ram: Rate = field(default_factory=lambda: Rate(2e9))
    """Bytes per second from host memory into a sequence."""
    disk: Rate = field(default_factory=lambda: Rate(5e8))
    """Bytes per second from disk into host memory."""
    copy: Rate = field(default_factory=lambda: Rate(4e9))
    """Bytes per second from one sequence's buffer into another's."""
