"""From a batch's logits to tokens: each sequence's chain of sampling, its grammar, and drafts proved right or wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from server.engine.constraint import ConstraintError
from server.engine.cores import roam
from server.engine.messages import TokenLogprob
from server.engine.sampler import NotANumberError, log_probabilities
from server.engine.sequence import Choice

if TYPE_CHECKING:
    from server.engine.llama.context import Logits
    from server.engine.llama.vocab import Vocab
    from server.engine.sampler import Row
    from server.engine.sequence import Sequence, Work

VOCABULARY_WORTH_A_THREAD = 16_384


class Chooser:
    """Chooses tokens.

    Args:
        threads: how many choose the tokens of several sequences side by side.
    """

    def __init__(self, vocab: Vocab, threads: int) -> None:
        self._vocab = vocab
        self._threads = ThreadPoolExecutor(threads, "sampler", roam) if threads > 1 else None

    def choose(self, works: list[Work], rows: Logits) -> list[Choice]:
        """The tokens that a batch's logits give each of its works.

        Args:
            works: what was computed.
            rows: logits of their outputs, one work's after the other's, [outputs, vocabulary].
        """
        parts: list[Logits] = []
        at = 0
        for work in works:
            parts.append(rows[at : at + work.outputs])
            at += work.outputs
        if self._threads and rows.shape[1] >= VOCABULARY_WORTH_A_THREAD and sum(map(_costly, works)) > 1:
            return list(self._threads.map(self._choose, works, parts))
        return list(map(self._choose, works, parts))

    def _choose(self, work: Work, rows: Logits) -> Choice:
        """The tokens that a sequence's rows of logits give: one, and one more for each draft that it proves right."""
        choice = Choice([])
        try:
            self._take(work, rows, choice)
        except (ConstraintError, NotANumberError) as error:
            choice.fault = error
        return choice

    def _take(self, work: Work, rows: Logits, choice: Choice) -> None:
        """Add to a choice what rows of logits give. Raises ConstraintError and NotANumberError."""
        sequence = work.sequence
        if not sequence.request.prompt_logprobs_told(sequence):
            choice.prompt_logprobs = self._prompt_logprobs(work, rows)
        if work.start + len(work.tokens) - work.drafts < len(sequence.tokens):
            return  # more of the prompt is still to come
        first = work.outputs - work.drafts - 1
        for i in range(work.drafts + 1):
            token = self._choose_one(sequence, rows[first + i], choice)
            if choice.calls_from is None and sequence.constraint and sequence.constraint.set_off:
                choice.calls_from = len(choice.tokens)
            choice.tokens.append(token)
            choice.complete = sequence.constraint is not None and sequence.constraint.complete
            if (
                i == work.drafts
                or token != work.tokens[len(work.tokens) - work.drafts + i]
                or self.ends(sequence, token)
                or choice.complete
            ):
                break
            choice.accepted += 1

    def _choose_one(self, sequence: Sequence, row: Row, choice: Choice) -> int:
        ask = sequence.request.ask
        if sequence.plain_greedy and ask.logprobs is None and ask.best_of <= ask.n:
            return sequence.sampler.likeliest(row)
        raw = row.copy() if ask.logprobs is not None or ask.best_of > ask.n else row
        if sequence.budget and sequence.budget.forbidden is not None:
            row[sequence.budget.forbidden] = -np.inf
        forced = sequence.forced
        token = forced if forced is not None else sequence.sampler.choose(row, sequence.constraint)
        if self.ends(sequence, token) and (instead := sequence.put_off_the_end()) is not None:
            token = instead
        sequence.sampler.observe(token)
        if sequence.budget:
            sequence.budget.take(token)
        if sequence.constraint and not self.ends(sequence, token):
            sequence.constraint.take(token)
        if raw is not row:
            logprob, top = log_probabilities(raw, token, ask.logprobs or 0)
            sequence.logprob_sum += logprob
            if ask.logprobs is not None:
                choice.logprobs.append(self._logprob(token, logprob, top))
        return token

    def _logprob(self, token: int, logprob: float, top: list[tuple[int, float]]) -> TokenLogprob:
        likeliest = [(t, self._vocab.piece(t, special=True), p) for t, p in top]
        return TokenLogprob(token, self._vocab.piece(token, special=True), logprob, likeliest)

    def _prompt_logprobs(self, work: Work, rows: Logits) -> list[TokenLogprob]:
        """For each prompt token that the batch's rows predict, and that has not been told of yet: its log-probability.

        A prompt that was interrupted is computed from its beginning again.
        """
        request = work.sequence.request
        found: list[TokenLogprob] = []
        for at, row in enumerate(rows, work.start + 1):
            if request.told < at < len(request.prompt):
                token = request.prompt[at]
                found.append(self._logprob(token, *log_probabilities(row, token, request.ask.logprobs or 0)))
        request.told = max(request.told, work.start + len(rows))
        return found

    def ends(self, sequence: Sequence, token: int) -> bool:
        """Whether a token ends a sequence. Under `ignore_eos` a grammar lets one come only where it must."""
        return token in self._vocab.end_tokens and not (sequence.request.ask.ignore_eos and not sequence.constraint)


def _costly(work: Work) -> bool:
    """Whether more is to be done for a work's tokens than to look for the likeliest."""
    request = work.sequence.request
    greedy = request.ask.sampling.temperature <= 0 and work.sequence.constraint is None and request.speculates
    return work.outputs > 0 and not greedy
