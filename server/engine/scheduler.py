"""Which tokens of which sequences go into the next batch.

Every step is one batch. Where a GPU computes, it holds the next token of each running generation and then pieces of
prompts up to a budget of tokens, so that the weights are read once for both. On a CPU, tokens cost more than weights,
and in one batch every sequence's attention is computed beside all others' cells: there the two take turns. The budget
follows from measured speed: a step may last only so long that running generations do not stall, so a long prompt comes
in beside them piece by piece. Where many prompts wait for few generations, or small ones for any, several come before
the next of these, so that the generations that follow share more of their steps. Requests are admitted in order of
priority and arrival while there is room for their KV state; where cells run out, the youngest sequence gives up its
place, is parked in RAM and goes on later.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.engine.kv_cache import KvCache, NotNow, Wanted
from server.engine.proposals import Proposals, Proposer
from server.engine.sequence import Request, Sequence, Work
from server.engine.speculation import StepTimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from server.engine.encoder import Encoder
    from server.engine.prefix_cache import Entry
    from server.engine.projector import Chunk

LONGER = 4
"""What part of its budget a prompt's last piece may take beyond it, where generations wait."""
TOLD_AT_ONCE = 128
"""Tokens of a prompt in one batch where the log-probability of each is wanted: their rows of logits take memory that
nothing else needs, and time in which all generations stand still."""
CELLS_KEPT_FOR_DECODING = 32
"""Room that a running sequence is expected to need soon, where others ask to be admitted."""


class QueueFullError(Exception):
    """As many requests wait as may."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one engine.

    Attributes:
        parallel: sequences that run side by side. queue: sequences that may wait.
        batch: tokens of one step. ubatch: tokens of it that are computed at a time.
        gap: seconds that a step may take while generations run, or a few times a plain step where that is longer.
        longest_gap: seconds that it may take where many prompts wait, or several that take no longer than `gap` each.
        efficient_gap: seconds that it may take for an efficient piece of a prompt.
        solo_gap: seconds that a step may take while no generation runs.
        smallest_chunk: tokens of a prompt that a step takes at least, and multiples of it up to `efficient_chunk`.
        efficient_chunk: tokens from which on a larger piece is computed hardly faster. chunk_unit: larger pieces have
            multiples of it; where nobody waits, of `ubatch`.
        mixed: whether one batch may hold both generations and prompts.
    """

    parallel: int
    queue: int
    batch: int
    ubatch: int = 512
    gap: float = 0.5
    longest_gap: float = 1.2
    efficient_gap: float = 2.4
    solo_gap: float = 4.0
    smallest_chunk: int = 16
    efficient_chunk: int = 64
    chunk_unit: int = 64
    mixed: bool = True


class Scheduler:
    """Owns the waiting and the running sequences; asks the cache for their places.

    Args:
        encoder: computes the embeddings of what prompts show; prompts wait for it.
    """

    def __init__(
        self, cache: KvCache, limits: Limits, proposers: Iterable[Proposer] = (), encoder: Encoder | None = None
    ) -> None:
        self.cache = cache
        self._encoder = encoder
        self.limits = limits
        self.times = StepTimes()
        self._proposals = Proposals(
            proposers if cache.layout.truncatable else (),
            self.times,
            batch=limits.batch,
            buffers_apart=not cache.layout.unified,
        )
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._claimed = 0
        self._stalled = 0.0  # seconds that prompts have taken since generations last had their turn
        self._long_had_turn = False  # the latest piece of a prompt was of one that is not small

    def submit(self, request: Request) -> None:
        """Queue all choices of a request. Raises QueueFullError, and then none is queued."""
        if len(self.waiting) + len(request.sequences) > self.limits.queue:
            raise QueueFullError
        for sequence in request.sequences:
            insort(self.waiting, sequence, key=_turn)

    def plan(self) -> list[Work]:
        """The next batch: empty where there is nothing to do, or all must wait for something."""
        self._claimed = 0
        self._admit()
        works = self._mixed() if self.limits.mixed else self._next_turn()
        # the last ones planned may have preempted earlier ones
        there = [(work, work.sequence.entry) for work in works if work.sequence.entry]
        self.cache.gather((entry for work, entry in there if work.sequence.decoding), self.times.seconds)
        return [work for work, _ in sorted(there, key=lambda each: each[1].sequence)]

    def _mixed(self) -> list[Work]:
        works = list(self._decodes())
        works += self._prefills(sum(len(work.tokens) for work in works))
        return works

    def _next_turn(self) -> list[Work]:
        """Prompts, until generations have stood still for as long as they may; then these. Either where it is alone."""
        width = sum(sequence.decoding for sequence in self.running)
        prompts = width < len(self.running)
        small = self._small_prompt() if prompts else 0
        patient = self._stalled == 0.0 or self._patience(width) - self._stalled >= self._efficient_seconds
        if prompts and (small or patient):
            works = list(self._prefills(width, least=small))
            if works:
                tokens = sum(len(work.tokens) for work in works)
                self._stalled += tokens / self.cache.costs.prefill.value if width else 0.0
                return works
        self._stalled = 0.0
        return list(self._decodes()) or list(self._prefills(0))

    def commit(self, work: Work, accepted: int) -> None:
        """Note that a batch has been computed: `accepted` of the work's drafts proved right, the rest are forgotten."""
        entry = work.sequence.entry
        assert entry
        right = work.tokens[len(work.tokens) - work.drafts :][:accepted]
        self.cache.append(entry, right)
        work.sequence.tokens.extend(right)
        self.cache.advance(entry, len(work.tokens) - work.drafts + accepted)
        if accepted < work.drafts:
            self.cache.forget_drafts(entry)
        if entry.ready in work.sequence.request.checkpoints and work.sequence.request.ask.cache_prompt:
            self.cache.checkpoint(entry)

    def append(self, sequence: Sequence, token: int) -> None:
        """Add a chosen token to a sequence; the next step computes it."""
        assert sequence.entry
        sequence.tokens.append(token)
        self.cache.append(sequence.entry, [token])

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is.

        What it has computed stays in the cache if its request lets it; what it began with stays in any case.
        """
        request = sequence.request
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        others_wait = any(other in self.waiting for other in request.sequences)
        if sequence.entry:
            self.cache.close(sequence.entry, lend=len(request.prompt) if others_wait else 0)
            if sequence.entry.private:
                request.lent.append(sequence.entry)
            sequence.entry = None
        self._unpark(sequence, keep=True)
        while request.lent and not others_wait:
            self.cache.settle(request.lent.pop())
        self._proposals.learn(sequence)

    def preempt(self) -> bool:
        """Take the youngest running sequence off the device, to go on later. False where only one is left."""
        if len(self.running) < 2:
            return False
        youngest = max(self.running, key=_turn)
        self.running.remove(youngest)
        assert youngest.entry
        youngest.parked, youngest.preempted = self.cache.park(youngest.entry), True
        youngest.entry = None
        insort(self.waiting, youngest, key=_turn)
        self.preemptions += 1
        return True

    # admission

    def _admit(self) -> None:
        for sequence in list(self.waiting):
            if len(self.running) >= self.limits.parallel:
                return
            opened = self._open(sequence)
            if opened is NotNow.WAIT:
                continue
            if opened is NotNow.FULL:
                return
            sequence.entry = opened
            if self.running and not self.cache.reserve(opened, sequence.pending + self._spoken_for()):
                self.cache.withdraw(opened)
                sequence.entry = None
                return
            self._unpark(sequence, keep=False)
            if sequence.request.cached_tokens is None:
                sequence.request.cached_tokens = opened.ready
            self.waiting.remove(sequence)
            insort(self.running, sequence, key=_turn)

    def _open(self, sequence: Sequence) -> Entry | NotNow:
        ask = sequence.request.ask
        wanted = Wanted(
            sequence.tokens,
            ask.partition,
            sequence.request.positions,
            private=not ask.cache_prompt,
            again=sequence.preempted,
        )
        return self.cache.open(wanted, reuse=sequence.request.prompt_logprobs_told(sequence))

    def _spoken_for(self) -> int:
        """Cells that running sequences will need: the rest of their prompts and a little to generate."""
        return sum(sequence.pending + CELLS_KEPT_FOR_DECODING for sequence in self.running)

    def _unpark(self, sequence: Sequence, *, keep: bool) -> None:
        if sequence.parked:
            self.cache.unpark(sequence.parked, keep=keep)
            sequence.parked = None

    # decoding

    def _decodes(self) -> Iterator[Work]:
        """The next token of each generation, and proposals for those after it where they pay."""
        decoding = [sequence for sequence in self.running if sequence.decoding]
        for sequence, (proposed, kind) in self._proposals.for_all(decoding).items():
            drafts = proposed if proposed and self._fits(sequence, 1 + len(proposed)) else []
            if self._reserve(sequence, 1 + len(drafts)) and sequence.entry:
                tokens = [sequence.tokens[-1], *drafts]
                yield Work(sequence, sequence.entry.ready, tokens, len(drafts), len(tokens), kind)

    def _fits(self, sequence: Sequence, cells: int) -> bool:
        """Whether there is room for a sequence's tokens with nobody losing their place: guesses are not worth that."""
        return sequence.entry is not None and self.cache.reserve(sequence.entry, self._claimed + cells)

    def _reserve(self, sequence: Sequence, cells: int) -> bool:
        """Make room for a sequence's tokens, if need be by preempting others. False where it was preempted itself."""
        while sequence.entry and not self.cache.reserve(sequence.entry, self._claimed + cells):
            if not self.preempt():
                return False
        if sequence.entry is None:
            return False
        self._claimed += cells
        return True

    # prefill

    def _plain(self, width: int) -> float:
        """Seconds of a step of `width` generated tokens and nothing else."""
        return self.times.seconds(width) if self.times.known else 0.0

    def _patience(self, width: int) -> float:
        """Seconds that generations, which take `width` tokens a step, may stand still for the sake of prompts.

        Who waits for a first token counts as much as who waits for the next: the more prompts there are for each
        generation, the longer it is.
        """
        generations = sum(sequence.decoding for sequence in self.running)
        weight = (len(self.running) - generations) / max(generations, 1)
        return max(self.limits.gap * max(weight, 1.0), 4 * self._plain(width))

    def _prompts(self) -> list[Sequence]:
        """The prompts to read, by priority and age; but after a piece of a long one, small ones go before the next."""
        prompts = [sequence for sequence in self.running if not sequence.decoding]
        if self._long_had_turn:
            prompts.sort(key=lambda sequence: (-sequence.request.ask.priority, not self._is_small(sequence)))
        return prompts

    def _is_small(self, prompt: Sequence) -> bool:
        """Whether all of it takes no longer than generations may be made to wait, and none of it has been read yet."""
        if prompt.entry is None:
            return False
        begun = prompt.index == 0 and prompt.entry.ready > (prompt.request.cached_tokens or 0)
        return not begun and self.cache.costs.prefill.seconds(prompt.pending) <= self.limits.gap

    def _small_prompt(self) -> int:
        """Tokens of the next prompt, if all of it may come before generations go on; otherwise 0.

        A step of few generations takes nearly as long as one of many: whoever comes in now shares all that follow.
        """
        prompts = self._prompts()
        if not prompts or not self._is_small(prompts[0]):
            return 0
        pending = prompts[0].pending
        return pending if self._stalled + self.cache.costs.prefill.seconds(pending) <= self.limits.longest_gap else 0

    @property
    def _efficient_seconds(self) -> float:
        """What the smallest piece takes that is computed efficiently, if generations may wait for so long."""
        seconds = self.limits.efficient_chunk / self.cache.costs.prefill.value
        return seconds if seconds <= self.limits.efficient_gap else self.limits.longest_gap

    def _prefill_budget(self, width: int) -> int:
        """How many prompt tokens may come between steps of `width` tokens, by the speed they have been computed at."""
        limits, rate = self.limits, self.cache.costs.prefill.value
        seconds = limits.solo_gap
        if width:
            plain = self._plain(width)
            seconds = min(self._patience(width) - self._stalled, max(limits.longest_gap, 4 * plain)) - plain
        seconds = max(seconds, self._efficient_seconds)
        tokens = round(seconds * rate)
        unit = limits.chunk_unit if tokens >= limits.efficient_chunk else limits.smallest_chunk
        if not width and tokens >= limits.ubatch:
            unit = limits.ubatch  # what is less takes longer for each token
        return min(max(tokens // unit, 1) * unit, limits.batch - width)

    def _prefills(self, width: int, least: int = 0) -> Iterator[Work]:
        """Pieces of prompts, in the order of `_prompts`, until the budget beside `width` decoded tokens is spent.

        The budget is `least` tokens at least.
        Prompts with buffers of their own would be computed one after the other within a batch, too: there one is
        enough, and has its first token the sooner. So is one that tells of all of its tokens.
        """
        budget = max(self._prefill_budget(width), min(least, self.limits.batch - width))
        # a last piece may be a little longer, and where nobody waits by any number of tokens
        room = min(budget + budget // LONGER, self.limits.batch - width) if width else self.limits.batch
        for sequence in self._prompts():
            if budget <= 0:
                return
            small = self._is_small(sequence)
            if work := self._prefill(sequence, budget, room):
                self._long_had_turn = not small
                yield work
                if not self.cache.layout.unified or work.outputs > 1:
                    return
                budget -= len(work.tokens)
                room -= len(work.tokens)

    def _prefill(self, sequence: Sequence, budget: int, room: int) -> Work | None:
        entry = sequence.entry
        if entry is None:
            return None
        start, whole = entry.ready, len(sequence.tokens)
        end = min(whole, start + budget)
        if budget >= self.limits.efficient_chunk > whole - end and whole - start <= room:
            end = whole  # what is left would be an inefficient piece
        tells = not sequence.request.prompt_logprobs_told(sequence)
        if tells:
            end = min(end, start + TOLD_AT_ONCE)
        end = min([end, *(at for at in sequence.request.checkpoints if start < at)])
        chunk = sequence.request.chunk_behind(start)
        if chunk and start >= chunk.span.start:
            if not self._is_encoded(chunk, sequence):
                return None
            end = chunk.span.end if chunk.whole else min(end, chunk.span.end)
        elif chunk:
            end, chunk = min(end, chunk.span.start), None
        if not self._reserve(sequence, end - start):
            return None
        last = end == len(sequence.tokens)
        outputs = end - start if tells else int(last)
        return Work(sequence, start, sequence.tokens[start:end], outputs=outputs, chunk=chunk)

    def _is_encoded(self, chunk: Chunk, sequence: Sequence) -> bool:
        assert self._encoder
        return self._encoder.ready(sequence.request.ask.id, chunk)


def _turn(sequence: Sequence) -> tuple[int, float, int, int]:
    """Whose turn comes first: higher priority, then earlier arrival."""
    ask = sequence.request.ask
    return (-ask.priority, sequence.request.arrived, ask.id, sequence.index)
