"""A request on its way through the engine, and the sequences (one a choice) that answer it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.engine.messages import Delta, FinishReason, TokenLogprob
from server.engine.positions import TEXT, Positions
from server.engine.speculation import Acceptance, Kind, Lookup

if TYPE_CHECKING:
    from server.engine.constraint import ConstraintError, OutputConstraint
    from server.engine.prediction import Prediction
    from server.engine.prefix_cache import Entry
    from server.engine.projector import Chunk
    from server.engine.reasoning import ReasoningBudget
    from server.engine.request import Generate
    from server.engine.sampler import NotANumberError, Sampler
    from server.engine.text import TextStream


@dataclass(eq=False, slots=True)
class Request:
    """What was asked, and what its choices share.

    Attributes:
        prompt: the prompt's tokens.
        arrived: when it came, in the engine's seconds. started: when its first sequence was admitted.
        first_token: when its first token was there.
        checkpoints: prompt lengths at which a state that cannot be cut later is saved.
        told: of how many of the prompt's tokens the log-probabilities have been told, if they are wanted.
    """

    ask: Generate
    prompt: list[int]
    arrived: float
    sequences: list[Sequence] = field(default_factory=list["Sequence"])
    started: float | None = None
    first_token: float | None = None
    cached_tokens: int | None = None
    checkpoints: list[int] = field(default_factory=list[int])
    chunks: list[Chunk] = field(default_factory=list["Chunk"])
    """What the prompt shows."""
    positions: Positions = TEXT
    told: int = 0
    lent: list[Entry] = field(default_factory=list["Entry"])
    """What choices that have ended computed, for those that still wait."""

    def prompt_logprobs_told(self, sequence: Sequence) -> bool:
        """Whether a sequence has nothing (more) to tell of the prompt: it is the first one that does."""
        return not self.ask.prompt_logprobs or sequence.index > 0 or self.told >= len(self.prompt)

    @property
    def speculates(self) -> bool:
        """Whether several tokens of a choice may be chosen in one step."""
        return self.ask.logprobs is None and self.ask.best_of <= self.ask.n

    @property
    def finished(self) -> bool:
        """Whether all choices are over."""
        return all(sequence.finish for sequence in self.sequences)

    def chunk_behind(self, index: int) -> Chunk | None:
        """The chunk that the token at `index` belongs to, or the next one."""
        return next((chunk for chunk in self.chunks if index < chunk.span.end), None)


@dataclass(eq=False, slots=True, weakref_slot=True)
class Sequence:
    """One choice of a request: its tokens, where their KV state is, and how its next token is chosen.

    Attributes:
        tokens: prompt and generated tokens; the last one's state is computed with the next.
        entry: its place on the device while it runs, None while it waits.
        preempted: whether it has lost its place before. parked: its state in RAM while it waits for another.
        lookup: what proposes tokens by prompt lookup, or None.
    """

    request: Request
    index: int
    tokens: list[int]
    limit: int
    """The most tokens it may come to have, prompt included."""
    sampler: Sampler
    text: TextStream
    visible: frozenset[int] = frozenset()
    """Special tokens whose text shows in the output."""
    constraint: OutputConstraint | None = None
    """The grammar that its output is held to, as far as it has come."""
    budget: ReasoningBudget | None = None
    """How much longer it may reason, where that is bounded."""
    lookup: Lookup | None = None
    prediction: Prediction | None = None
    """What it is expected to be like, if the request says so."""
    acceptance: dict[Kind, Acceptance] = field(default_factory=dict[Kind, Acceptance])
    """How each kind of proposals has done."""
    entry: Entry | None = None
    preempted: bool = False
    parked: Entry | None = None
    finish: FinishReason | None = None
    chosen: int = 0
    """Tokens chosen so far, an end token included."""
    logprob_sum: float = 0.0
    last_token_at: float = 0.0
    withheld: list[Delta] = field(default_factory=list[Delta])
    """Its deltas, where only the best choices will be given out."""

    @property
    def generated(self) -> int:
        """How many tokens have been generated."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def pending(self) -> int:
        """How many tokens are still to be computed before the next one can be chosen."""
        return len(self.tokens) - (self.entry.ready if self.entry else 0)

    @property
    def plain_greedy(self) -> bool:
        """Whether its next token is the likeliest, with nothing to adjust before and no grammar or budget to obey."""
        return self.constraint is None and self.budget is None and self.sampler.plain_greedy

    @property
    def forced(self) -> int | None:
        """The token that must come next because its reasoning has to end, unless its grammar forbids that."""
        token = self.budget.forced if self.budget else None
        if token is None or not self.constraint or not self.constraint.begun or self.constraint.admits(token):
            return token
        return None

    def put_off_the_end(self) -> int | None:
        """The first token that ends reasoning, where the output would end in it though a grammar must still be kept."""
        if self.budget is None or self.constraint is None or not self.constraint.due:
            return None
        self.budget.close()
        return self.budget.forced

    @property
    def decoding(self) -> bool:
        """Whether only its latest token is to be computed."""
        return self.entry is not None and self.pending == 1 and self.generated > 0


@dataclass(slots=True)
class Work:
    """A sequence's part in one batch.

    Attributes:
        start: position of the first token. tokens: what is computed, drafts at the end included.
        drafts: how many of the tokens are proposals. kind: which ones.
        outputs: for how many of the last tokens logits are wanted.
        chunk: what the tokens stand for; None for text.
    """

    sequence: Sequence
    start: int
    tokens: list[int]
    drafts: int = 0
    outputs: int = 0
    kind: Kind | None = None
    chunk: Chunk | None = None


@dataclass(slots=True)
class Choice:
    """Tokens chosen for a sequence in one step, with what goes with them."""

    tokens: list[int]
    accepted: int = 0
    complete: bool = False
    """Whether the grammar allows nothing after the last token."""
    calls_from: int | None = None
    """From which of the tokens on they are a call and no text."""
    fault: ConstraintError | NotANumberError | None = None
    """Why no token could be chosen."""
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
