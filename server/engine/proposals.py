"""Which tokens are proposed for which generations, and by whom, so that one step may give several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from server.engine.speculation import Experience, Kind, StepTimes, draft_length, grade

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.engine.sequence import Sequence


class Proposer(Protocol):
    """Guesses what comes next, for the model to verify.

    Attributes:
        name: tells its successes from others'.
    """

    name: str

    @property
    def cost(self) -> float:
        """Seconds that one guessed token takes, as measured."""
        ...

    def could(self, sequence: Sequence) -> bool:
        """Whether there is any hope of a proposal; to be answered at once."""
        ...

    def grade(self, sequence: Sequence) -> int:
        """How much agrees with what a proposal would go by."""
        ...

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """For each sequence up to so many tokens, or none."""
        ...


class Source(Protocol):
    """What a sequence has of its own to propose from."""

    @property
    def hit(self) -> bool:
        """Whether there is something to propose."""
        ...

    @property
    def agreeing(self) -> int:
        """How many of the latest tokens agree with what it goes by."""
        ...

    def propose(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next."""
        ...


class OwnProposer(ABC):
    """Proposes for each sequence what its own source gives, at no cost."""

    name: str
    cost = 0.0

    @abstractmethod
    def source(self, sequence: Sequence) -> Source | None:
        """What it proposes from, if the sequence has it."""

    def could(self, sequence: Sequence) -> bool:
        """Whether the sequence's source has something now."""
        source = self.source(sequence)
        return source is not None and source.hit

    def grade(self, sequence: Sequence) -> int:
        """How much agrees with what the source goes by."""
        source = self.source(sequence)
        return grade(source.agreeing) if source else 0

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """For each sequence what its source gives, up to so many tokens."""
        sources = [(self.source(sequence), most) for sequence, most in wanted]
        return [source.propose(most) if source else [] for source, most in sources]


class PromptLookup(OwnProposer):
    """Proposes what followed the latest tokens before."""

    name = "lookup"

    def source(self, sequence: Sequence) -> Source | None:
        """The index of the sequence's own tokens."""
        return sequence.lookup


class Predictions(OwnProposer):
    """Proposes what the request's prediction goes on with."""

    name = "prediction"

    def source(self, sequence: Sequence) -> Source | None:
        """What the sequence is expected to be like."""
        return sequence.prediction


class Proposals:
    """Asks proposers in their order, where what they propose is likely to pay.

    Args:
        times: how long steps take by their width.
        batch: tokens of one step.
        buffers_apart: whether each sequence has a buffer of its own: several proposals are then computed one by one.
    """

    def __init__(self, proposers: Iterable[Proposer], times: StepTimes, *, batch: int, buffers_apart: bool) -> None:
        self._proposers = list(proposers)
        self._times = times
        self._batch = batch
        self._buffers_apart = buffers_apart
        self._experience = Experience()

    def for_all(self, decoding: list[Sequence]) -> dict[Sequence, tuple[list[int], Kind | None]]:
        """For each generation of the next step what is proposed, by the first proposer that has something for it."""
        found: dict[Sequence, tuple[list[int], Kind | None]] = {sequence: ([], None) for sequence in decoding}
        width = len(decoding)
        apart = width > 1 and self._buffers_apart
        for proposer in self._proposers:
            wanted: list[tuple[Sequence, int]] = []
            kinds: list[Kind] = []
            for sequence, (drafts, _) in found.items():
                if drafts or not sequence.request.speculates or not proposer.could(sequence):
                    continue
                kind = Kind(proposer.name, proposer.grade(sequence))
                if kind not in sequence.acceptance:
                    sequence.acceptance[kind] = self._experience.begin(kind)
                acceptance = sequence.acceptance[kind]
                room = min(sequence.limit - len(sequence.tokens) - 1, self._batch - width)
                most = min(room, draft_length(acceptance, self._times, width, proposer.cost, apart=apart))
                if most > 0:
                    wanted.append((sequence, most))
                    kinds.append(kind)
                    width += most
            proposed = proposer.propose(wanted) if wanted else []
            for (sequence, most), kind, drafts in zip(wanted, kinds, proposed, strict=True):
                width -= most - len(drafts)
                if drafts:
                    found[sequence] = (drafts, kind)
        return found

    def learn(self, sequence: Sequence) -> None:
        """Take in how a finished generation's proposals did: later ones begin with it."""
        for kind, acceptance in sequence.acceptance.items():
            self._experience.learn(kind, acceptance)
