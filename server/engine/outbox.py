"""What generations give on its way to the server: a few tokens in one message where they come quickly.

Every message wakes the server, and that wakes a client, on cores that llama.cpp is about to use. Where a token comes a
few hundredths of a second after another, nobody reads it the sooner for having come alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from server.engine.messages import Delta, Steps

if TYPE_CHECKING:
    from collections.abc import Callable

TOGETHER = 16
"""Tokens of a choice that wait no longer: a stream should stay one where thousands of tokens come in a second."""


class Outbox:
    """Keeps tokens back for a moment, to send them with the next ones.

    Args:
        send: sends a message.
        interval: seconds between messages; what comes sooner after the last one waits for the next step.
        clock: seconds.
    """

    def __init__(self, send: Callable[[Steps], None], interval: float, clock: Callable[[], float]) -> None:
        self._send = send
        self._interval = interval
        self._clock = clock
        self._sent_at = 0.0
        self._kept: dict[tuple[int, int], Delta] = {}

    def put(self, steps: Steps, *, hurry: bool) -> None:
        """Send what a step gave, or keep it for the next one.

        Args:
            hurry: send it at once. So is what ends or tells of more than text, and what many tokens wait for.
        """
        if self._kept:
            deltas = [*self._with_kept(steps.deltas), *self._kept.values()]
            self._kept = {}
            steps = Steps(deltas, steps.done)
        if not steps.deltas and not steps.done:
            return
        late = self._clock() - self._sent_at >= self._interval
        if hurry or late or steps.done or not all(map(_can_wait, steps.deltas)):
            self._send(steps)
            self._sent_at = self._clock()
        else:
            for delta in steps.deltas:
                earlier = self._kept.get((delta.id, delta.index))
                self._kept[delta.id, delta.index] = _joined(earlier, delta) if earlier else delta

    def flush(self) -> None:
        """Send what was kept."""
        if self._kept:
            self.put(Steps([]), hurry=True)

    def _with_kept(self, deltas: list[Delta]) -> list[Delta]:
        """These, each with what was kept of its choice before it."""
        whole: list[Delta] = []
        for delta in deltas:
            earlier = self._kept.pop((delta.id, delta.index), None)
            whole.append(_joined(earlier, delta) if earlier else delta)
        return whole


def _can_wait(delta: Delta) -> bool:
    told = delta.logprobs or delta.prompt_logprobs or delta.progress or delta.finish
    return not told and len(delta.tokens) < TOGETHER


def _joined(earlier: Delta, later: Delta) -> Delta:
    return structs.replace(later, text=earlier.text + later.text, tokens=earlier.tokens + later.tokens)
