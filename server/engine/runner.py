"""One step of the engine: plan a batch, compute it, choose tokens, and say what that gave each request."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from server.engine.choosing import Chooser
from server.engine.messages import Delta, Done, FinishReason, PromptProgress, Refused, Steps, Usage
from server.engine.metrics import Metrics
from server.engine.neighbours import in_one_piece
from server.engine.proposals import Predictions
from server.engine.sampler import NotANumberError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from server.engine.constraint import ConstraintError
    from server.engine.encoder import Encoder
    from server.engine.kv_cache import KvCache
    from server.engine.llama.context import Context, Logits
    from server.engine.llama.vocab import Vocab
    from server.engine.projector import Chunk
    from server.engine.scheduler import Scheduler
    from server.engine.sequence import Choice, Request, Sequence, Work

PREFILL_WORTH_MEASURING = 16
NO_ROWS: Logits = np.empty((0, 0), np.float32)


class Runner:
    """Runs the scheduler's plans on a context.

    Args:
        helpers: threads that choose the tokens of several sequences side by side.
        encoder: has what prompts show.
        before_prompts: called before a batch that holds anything of prompts, which may take long.

    Attributes:
        generating: whether the latest batch held nothing of prompts.
    """

    def __init__(
        self,
        context: Context,
        vocab: Vocab,
        scheduler: Scheduler,
        cache: KvCache,
        *,
        helpers: int,
        encoder: Encoder | None = None,
        before_prompts: Callable[[], None] = lambda: None,
    ) -> None:
        self.metrics = Metrics()
        self.generating = False
        self.requests: dict[int, Request] = {}
        self._refusals: list[Refused] = []
        self._context = context
        self._vocab = vocab
        self._scheduler = scheduler
        self._cache = cache
        self._encoder = encoder
        self._before_prompts = before_prompts
        self._chooser = Chooser(vocab, helpers)
        self._in_vain = 0  # batches in a row that llama.cpp found no place for though they were of one sequence

    # requests

    def submit(self, request: Request) -> None:
        """Take a request in. Raises QueueFullError."""
        self._scheduler.submit(request)
        self.requests[request.ask.id] = request

    def cancel(self, number: int, reason: str = "cancelled") -> None:
        """End a request, waiting or running; nothing more is said of it but, in the metrics, the reason."""
        request = self.requests.pop(number, None)
        if request is None:
            return
        self._stop_encoding(request)
        for sequence in request.sequences:
            if not sequence.finish:
                self._scheduler.finish(sequence)
                sequence.finish = "cancelled"
        self.metrics.finish(self._usage(request), reason)

    def expire(self, now: float) -> Steps | None:
        """End the requests whose time is over."""
        late = [
            request for request in self.requests.values() if now - request.arrived > (request.ask.max_time or math.inf)
        ]
        if not late:
            return None
        deltas: list[Delta] = []
        for request in late:
            for sequence in request.sequences:
                if not sequence.finish:
                    deltas += _tellable(sequence, self._end(sequence, "time"))
            deltas += _best(request)
        return Steps(deltas, [self._done(request) for request in late])

    def fail(self, message: str) -> list[Refused]:
        """End all requests with an error, as after a failure of llama.cpp."""
        refused = [Refused(id=number, message=message, status=500, code="engine_error") for number in self.requests]
        for number in list(self.requests):
            self.cancel(number, "error")
        return refused

    def take_refusals(self) -> list[Refused]:
        """The requests that came to nothing in the latest step, to be told of once."""
        refusals, self._refusals = self._refusals, []
        return refusals

    def _refuse(self, request: Request, fault: ConstraintError | NotANumberError) -> None:
        status, code = (500, "engine_error") if isinstance(fault, NotANumberError) else (400, "grammar_not_followed")
        self._refusals.append(Refused(id=request.ask.id, message=str(fault), status=status, code=code))
        self.cancel(request.ask.id, "error")

    # a step

    def step(self) -> Steps | None:
        """Compute one batch. None where there is nothing to compute now."""
        begun, own = time.monotonic(), -time.thread_time()
        works = self._scheduler.plan()
        if not works:
            return None
        self.generating = all(work.sequence.decoding for work in works)
        if not self.generating:
            self._before_prompts()
        before = time.monotonic()
        self._note_start(works, before)
        own += time.thread_time()
        texts = [work for work in works if work.chunk is None]
        if not all(self._show(work, work.chunk) for work in works if work.chunk) or not self._compute(texts):
            self._make_room()
            return Steps([])
        self._in_vain = 0
        rows = self._context.logits(sum(work.outputs for work in texts)) if texts else NO_ROWS
        after = time.monotonic()
        own -= time.thread_time()
        choices = self._chooser.choose(texts, rows)
        if len(texts) == len(works):
            self._learn(works, after - before)
        steps = self._tell(texts, choices, after)
        self._count(works, begun, after - before)
        self.metrics.own_cpu_seconds += own + time.thread_time()
        return steps

    def _make_room(self) -> None:
        """llama.cpp found no place for a batch: take one sequence from it, or what is idle; at last, give up."""
        if self._scheduler.preempt():
            return
        self._in_vain += 1
        if self._in_vain == 1:
            self._cache.drop_idle()
            return
        for request in {sequence.request for sequence in self._scheduler.running}:
            text = "llama.cpp finds no room for this request's tokens; serve the model with a larger --ctx"
            self._refusals.append(Refused(id=request.ask.id, message=text, status=500, code="engine_error"))
            self.cancel(request.ask.id, "error")

    def _show(self, work: Work, chunk: Chunk) -> bool:
        """Compute a piece of what a prompt shows: at once and alone, since embeddings share no batch with tokens."""
        entry = work.sequence.entry
        assert entry
        assert self._encoder
        assert chunk.embeddings is not None
        first = work.start - chunk.span.start
        piece = slice(first, first + len(work.tokens))
        place = self._encoder.projector.positions(chunk, work.sequence.request.positions.at(chunk.span.start))
        computed = self._context.decode_embeddings(
            chunk.embeddings[piece], place[:, piece], entry.sequence, causal=not chunk.whole
        )
        if computed:
            self._scheduler.commit(work, 0)
        return computed

    def _compute(self, works: list[Work]) -> bool:
        if not works:
            return True
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[int] = []
        for work in works:
            assert work.sequence.entry
            n = len(work.tokens)
            tokens += work.tokens
            positions += work.sequence.request.positions.of(work.start, n)
            sequences += [work.sequence.entry.sequence] * n
            outputs += range(len(tokens) - work.outputs, len(tokens))
        return self._context.decode(tokens, positions, sequences, outputs, generating=self.generating)

    def _stop_encoding(self, request: Request) -> None:
        if self._encoder:
            for chunk in request.chunks:
                self._encoder.forget(chunk)

    # telling

    def _tell(self, works: list[Work], choices: Iterable[Choice], now: float) -> Steps:
        deltas: list[Delta] = []
        done: list[Done] = []
        chosen = list(zip(works, choices, strict=True))
        for work, choice in chosen:  # before any ends: a request's failure ends all of its choices
            self._scheduler.commit(work, choice.accepted)
        for work, choice in chosen:
            sequence = work.sequence
            if sequence.finish:
                continue
            deltas += _progress(work, now)
            if choice.fault:
                self._refuse(sequence.request, choice.fault)
                continue
            if work.kind:
                sequence.acceptance[work.kind].learn(work.drafts, choice.accepted)
            delta = self._take(sequence, choice, now)
            if work.kind:  # the answer may have ended among those that were right
                given = min(choice.accepted, len(delta.tokens) if delta else 0)
                sequence.acceptance[work.kind].accepted += given - choice.accepted
                self.metrics.accepted_tokens += given
            if delta is None:
                continue
            deltas += _tellable(sequence, delta)
            if delta.finish and sequence.request.finished:
                deltas += _best(sequence.request)
                done.append(self._done(sequence.request))
        return Steps(deltas, done)

    def _take(self, sequence: Sequence, choice: Choice, now: float) -> Delta | None:
        """Add the chosen tokens to a sequence, up to where it ends."""
        if choice.tokens and sequence.request.ask.max_tokens == 0:  # only the prompt was to be computed
            return self._last(sequence, "length", "", choice, 0, now)
        text = ""
        for i, token in enumerate(choice.tokens):
            sequence.chosen += 1
            shown = self._vocab.piece(token, special=token in sequence.visible)
            if i == choice.calls_from:
                text += sequence.text.release()
            if self._chooser.ends(sequence, token):
                text += sequence.text.push(shown if token in sequence.visible else b"")
                return self._last(sequence, "stop", text, choice, i + 1, now)
            text += sequence.text.push(shown)
            if i >= choice.accepted:
                self._scheduler.append(sequence, token)
            if sequence.lookup:
                sequence.lookup.extend([token])
            if sequence.prediction:
                sequence.prediction.take(token)
            if sequence.text.stopped_by is not None or (choice.complete and i + 1 == len(choice.tokens)):
                return self._last(sequence, "stop", text, choice, i + 1, now)
            if len(sequence.tokens) >= sequence.limit:
                return self._last(sequence, "length", text, choice, i + 1, now)
        if not choice.tokens and not choice.prompt_logprobs:
            return None
        self._note_time(sequence, now, len(choice.tokens))
        return Delta(
            id=sequence.request.ask.id,
            index=sequence.index,
            text=text,
            tokens=choice.tokens,
            logprobs=choice.logprobs,
            prompt_logprobs=choice.prompt_logprobs,
        )

    def _last(
        self, sequence: Sequence, reason: FinishReason, text: str, choice: Choice, tokens: int, now: float
    ) -> Delta:
        self._note_time(sequence, now, tokens)
        delta = self._end(sequence, reason)
        return Delta(
            id=delta.id,
            index=delta.index,
            text=text + delta.text,
            tokens=choice.tokens[:tokens],
            logprobs=choice.logprobs[:tokens],
            prompt_logprobs=choice.prompt_logprobs,
            finish=reason,
            stop_string=sequence.text.stopped_by,
        )

    def _end(self, sequence: Sequence, reason: FinishReason) -> Delta:
        sequence.finish = reason
        self._scheduler.finish(sequence)
        return Delta(id=sequence.request.ask.id, index=sequence.index, text=sequence.text.finish(), finish=reason)

    def _done(self, request: Request) -> Done:
        del self.requests[request.ask.id]
        self._stop_encoding(request)
        usage = self._usage(request)
        reasons = {sequence.finish for sequence in request.sequences}
        self.metrics.finish(usage, "time" if "time" in reasons else "length" if reasons == {"length"} else "stop")
        return Done(request.ask.id, usage)

    def _usage(self, request: Request) -> Usage:
        now = time.monotonic()
        started = request.started or now
        first = request.first_token or now
        speculation = [found for sequence in request.sequences for found in sequence.acceptance.items()]
        predicted = [acceptance for kind, acceptance in speculation if kind.proposer == Predictions.name]
        return Usage(
            prompt_tokens=len(request.prompt),
            completion_tokens=sum(sequence.chosen for sequence in request.sequences),
            cached_tokens=request.cached_tokens or 0,
            queue_seconds=started - request.arrived,
            prompt_seconds=first - started,
            generation_seconds=now - first,
            drafted_tokens=sum(acceptance.drafted for _, acceptance in speculation),
            accepted_tokens=sum(acceptance.accepted for _, acceptance in speculation),
            predicted_tokens=sum(acceptance.drafted for acceptance in predicted),
            accepted_predicted_tokens=sum(acceptance.accepted for acceptance in predicted),
        )

    # measuring

    def _note_start(self, works: list[Work], now: float) -> None:
        for work in works:
            request = work.sequence.request
            if request.started is None:
                request.started = now
                self.metrics.queue_time.observe(now - request.arrived)

    def _note_time(self, sequence: Sequence, now: float, tokens: int) -> None:
        if tokens == 0:
            return
        request = sequence.request
        if request.first_token is None:
            request.first_token = now
            self.metrics.ttft.observe(now - request.arrived)
        if sequence.last_token_at:
            for _ in range(tokens):
                self.metrics.inter_token.observe((now - sequence.last_token_at) / tokens)
        sequence.last_token_at = now
        self.metrics.generated_tokens += tokens

    def _learn(self, works: list[Work], seconds: float) -> None:
        """Let the scheduler know what this batch cost."""
        decodes = sum(len(work.tokens) for work in works if work.sequence.decoding)
        prefill = sum(len(work.tokens) for work in works) - decodes
        if prefill == 0:
            if len(works) == 1 or self._cache.layout.unified or in_one_piece(_tokens_by_place(works)):
                self._scheduler.times.learn(decodes, seconds)
        elif prefill >= PREFILL_WORTH_MEASURING:
            beside = self._scheduler.times.seconds(decodes) if decodes and self._scheduler.times.known else 0.0
            if seconds > beside:
                self._cache.costs.prefill.learn(prefill, seconds - beside)

    def _count(self, works: list[Work], begun: float, device: float) -> None:
        metrics = self.metrics
        metrics.steps += 1
        metrics.busy_seconds += time.monotonic() - begun
        metrics.device_seconds += device
        metrics.batch_sequences.observe(len(works))
        metrics.batch_tokens.observe(sum(len(work.tokens) for work in works))
        for work in works:
            metrics.drafted_tokens += work.drafts
            request = work.sequence.request
            if work.start < len(request.prompt):
                metrics.computed_tokens += min(len(work.tokens), len(request.prompt) - work.start)


def _tokens_by_place(works: Iterable[Work]) -> dict[int, int]:
    return {work.sequence.entry.sequence: len(work.tokens) for work in works if work.sequence.entry}


def _progress(work: Work, now: float) -> list[Delta]:
    """How far a prompt has come with this piece; before the first one, also where it began."""
    request = work.sequence.request
    total = len(request.prompt)
    again = work.sequence.chosen > 0  # its place was taken in between
    if not request.ask.progress or work.sequence.index > 0 or work.start >= total or again:
        return []
    cached, started = request.cached_tokens or 0, request.started or now
    begun = [PromptProgress(total, cached, cached, 0.0)] if work.start == cached else []
    now_at = PromptProgress(total, cached, min(work.start + len(work.tokens), total), now - started)
    return [Delta(id=request.ask.id, progress=progress) for progress in (*begun, now_at)]


def _tellable(sequence: Sequence, delta: Delta) -> list[Delta]:
    """What can be told of a delta at once; where only the best choices are wanted, the rest waits until all have ended.

    What the prompt's log-probabilities are does not depend on which of them are the best.
    """
    if sequence.request.ask.best_of <= sequence.request.ask.n:
        return [delta]
    sequence.withheld.append(structs.replace(delta, prompt_logprobs=[]))
    return [Delta(id=delta.id, prompt_logprobs=delta.prompt_logprobs)] if delta.prompt_logprobs else []


def _best(request: Request) -> list[Delta]:
    """The deltas of a request's best choices, renumbered, where more were generated than asked for."""
    ask = request.ask
    if ask.best_of <= ask.n:
        return []
    ranked = sorted(request.sequences, key=lambda s: s.logprob_sum / max(s.chosen, 1), reverse=True)
    return [structs.replace(delta, index=i) for i, s in enumerate(ranked[: ask.n]) for delta in s.withheld]
