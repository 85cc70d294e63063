"""A small model of the same vocabulary that guesses what the large one will say."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgspec import structs

from server.engine.costs import Rate
from server.engine.llama.backend import device_bytes
from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.prefix_cache import common_prefix
from server.errors import LoadError

if TYPE_CHECKING:
    from server.engine.llama.vocab import Vocab
    from server.engine.load_spec import LoadSpec
    from server.engine.sequence import Sequence


@dataclass(slots=True)
class _Slot:
    """One of the draft context's sequences, and the tokens whose state it holds."""

    number: int
    partition: str = ""
    tokens: list[int] = field(default_factory=list[int])
    used: int = 0


class DraftModel:
    """Proposes its own greedy continuation of each sequence, all sequences in one batch.

    Args:
        spec: of the large model; names the draft's file and where it goes.
        vocab: the large model's. context: tokens of one sequence.

    Attributes:
        device_bytes: what it holds, by llama.cpp's name of the device's memory.

    Raises:
        LoadError: the draft could not be loaded, its vocabulary is another, or it cannot take a guess back.
    """

    name = "draft"

    def __init__(self, spec: LoadSpec, vocab: Vocab, context: int) -> None:
        placement = spec.draft_placement
        own = structs.replace(
            spec,
            path=spec.draft_path,
            name=f"the draft of {spec.name}",
            placement=placement,
            adapters=(),
            reorder=True,
            rpc=(),  # the large model has added the RPC workers' devices
        )
        self._model = Model(own, lambda _: None)
        if self._model.vocab.size != vocab.size or self._model.vocab.end_tokens != vocab.end_tokens:
            raise LoadError(
                f"{spec.draft_path} has another vocabulary than {spec.name} ({self._model.vocab.size} tokens instead "
                f"of {vocab.size}); a draft must share the model's tokenizer"
            )
        if not self._model.truncatable:
            raise LoadError(
                f"{spec.draft_path} cannot be a draft: its state (recurrent, or of a sliding window) cannot be cut, so "
                "a wrong guess could not be taken back"
            )
        shape = ContextShape(
            cells=context * spec.parallel,
            sequences=spec.parallel,
            unified=False,
            batch=placement.n_batch,
            ubatch=placement.n_ubatch,
        )
        self._context = Context(self._model, own, shape)
        self.device_bytes = device_bytes()
        self._slots = [_Slot(number) for number in range(spec.parallel)]
        self._owners: WeakKeyDictionary[Sequence, _Slot] = WeakKeyDictionary()
        self._clock = 0
        self._rate = Rate(1000.0)

    @property
    def cost(self) -> float:
        """Seconds that one guessed token takes."""
        return self._rate.seconds(1)

    def set_threads(self, decode: int, batch: int) -> None:
        """CPU threads, as for the large model."""
        self._context.set_threads(decode, batch)

    def could(self, sequence: Sequence) -> bool:
        """Whether there is hope of a proposal: it sees no images and hears no sounds."""
        return not sequence.request.chunks

    def grade(self, sequence: Sequence) -> int:
        """All of its proposals are of one grade."""
        return 0

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """For each sequence up to so many tokens; none where much must be read before, a batch of it at a time."""
        slots = [self._slot_of(sequence) for sequence, _ in wanted]
        room = self._context.shape.batch
        for slot, (sequence, _) in zip(slots, wanted, strict=True):
            room -= self._catch_up(slot, sequence.tokens, room)
        level = [i for i, (sequence, _) in enumerate(wanted) if len(slots[i].tokens) == len(sequence.tokens) - 1]
        latest = [sequence.tokens[-1] for sequence, _ in wanted]
        begun = time.monotonic()
        drafts: list[list[int]] = [[] for _ in wanted]
        while going := [i for i in level if len(drafts[i]) < wanted[i][1]]:
            going.sort(key=lambda i: slots[i].number)
            tokens = [latest[i] for i in going]
            positions = [len(slots[i].tokens) for i in going]
            if not self._context.decode(
                tokens, positions, [slots[i].number for i in going], range(len(going)), generating=True
            ):
                break
            for i, row in zip(going, self._context.logits(len(going)), strict=True):
                slots[i].tokens.append(latest[i])
                latest[i] = int(row.argmax())
                drafts[i].append(latest[i])
        self._rate.learn(sum(map(len, drafts)), time.monotonic() - begun)
        return drafts

    def _slot_of(self, sequence: Sequence) -> _Slot:
        """The sequence's slot, or the one that has not been used for longest."""
        slot = self._owners.get(sequence)
        if slot is None:
            slot = min(self._slots, key=lambda slot: slot.used)
            for owner in [owner for owner, owned in self._owners.items() if owned is slot]:
                del self._owners[owner]
            self._owners[sequence] = slot
            self._give(slot, sequence.request.ask.partition)
        self._clock += 1
        slot.used = self._clock
        return slot

    def _give(self, slot: _Slot, partition: str) -> None:
        """Let a slot be a sequence's of this partition: of another's nothing is used, and no time tells of it."""
        if slot.partition != partition:
            self._context.drop(slot.number)
            slot.partition, slot.tokens = partition, []

    def _catch_up(self, slot: _Slot, tokens: list[int], room: int) -> int:
        """Compute a sequence's tokens but the last one, `room` of them at most. Returns how many that were."""
        known = common_prefix(slot.tokens, tokens[:-1])
        if known < len(slot.tokens):
            self._context.drop(slot.number, known)
            del slot.tokens[known:]
        part = tokens[known:-1][:room]
        if part:
            positions = range(known, known + len(part))
            self._context.decode(part, positions, [slot.number] * len(part), [len(part) - 1])
            slot.tokens += part
        return len(part)
