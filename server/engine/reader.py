"""The thread that reads what requests say: it tokenizes prompts, so that the decoding thread does not."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING

from server.engine.embedder import pair
from server.engine.grammar import Grammars
from server.engine.messages import Detokenize, Embed, Refused, Shutdown, Text, Tokenize, Tokens
from server.engine.orders import EmbedRequest
from server.engine.positions import TEXT, Positions
from server.engine.prediction import Prediction
from server.engine.reasoning import ReasoningBudget
from server.engine.request import Generate
from server.engine.sampler import Sampler
from server.engine.sequence import Request, Sequence
from server.engine.speculation import Lookup
from server.engine.text import TextStream
from server.errors import RequestError

if TYPE_CHECKING:
    from server.engine.channel import WorkerEnd
    from server.engine.constraint import OutputConstraint
    from server.engine.llama.model import Model
    from server.engine.load_spec import LoadSpec
    from server.engine.orders import Order
    from server.engine.projector import Chunk, Projector
    from server.engine.request import Medium

NO_PROJECTOR = "this model takes text alone: leave images and sounds out, or serve one with a --projector"
MOST_UNREAD = 64 << 20
"""Bytes of texts and media that may wait to be read; a single message may have more."""
LONG_WORDS = 16
"""Characters that are many for a token: so many for each that there is room for tell whether a text is too long."""
BYTES_PER_TOKEN = 40
"""What a number takes in a list of Python's."""
QUICKLY_READ = 1 << 20
"""Characters that take no more than some tenths of a second, so that their tokens can be told exactly."""
log = logging.getLogger("brim.worker")

Message = Generate | Tokenize | Detokenize | Embed


class Reader(threading.Thread):
    """Reads messages in turn; answers what needs no decoding itself, and passes the rest on as orders.

    Args:
        context: tokens that one request may have, prompt and answer together.
        orders: where the decoding thread takes its orders from.
        projector: reads what prompts show; None where the model knows text alone.
    """

    def __init__(
        self,
        channel: WorkerEnd,
        model: Model,
        spec: LoadSpec,
        context: int,
        orders: queue.SimpleQueue[Order],
        projector: Projector | None = None,
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self._channel = channel
        self._model = model
        self._vocab = model.vocab
        self._spec = spec
        self._context = context
        self._orders = orders
        self._projector = projector
        self._grammars = Grammars(model.vocab)
        self._turns: queue.SimpleQueue[int | Shutdown] = queue.SimpleQueue()
        self._unread: dict[int, tuple[Message, float]] = {}
        self._lock = threading.Lock()

    def put(self, message: Message) -> bool:
        """Have a message read. False where those that wait take too much memory."""
        with self._lock:
            if self._unread and sum(_size(other) for other, _ in self._unread.values()) + _size(message) > MOST_UNREAD:
                return False
            self._unread[message.id] = message, time.monotonic()
        self._turns.put(message.id)
        return True

    def shut_down(self, order: Shutdown) -> None:
        """Pass on that the worker is to end, behind all that came before."""
        self._turns.put(order)

    def drop(self, number: int) -> bool:
        """Forget a message that is still to be read, or just being read. False where there is none."""
        with self._lock:
            return self._unread.pop(number, None) is not None

    def run(self) -> None:
        """Read until the process ends."""
        while True:
            turn = self._turns.get()
            if isinstance(turn, Shutdown):
                self._orders.put(turn)
            elif unread := self._unread.get(turn):
                self._answer(*unread)
                self.drop(turn)
            unread = None  # it may be large, and this thread may wait for long

    def _answer(self, message: Message, arrived: float) -> None:
        """Read a message; whatever goes wrong, whoever waits for an answer gets one, and others theirs."""
        try:
            self._read(message, arrived)
        except RequestError as error:
            self._channel.send(_refused(message.id, error))
        except Exception as error:
            log.exception("a request could not be read")
            text = f"the engine failed to read the request: {type(error).__name__}: {error}"
            self._channel.send(Refused(id=message.id, message=text, status=500, code="engine_error"))

    def _order(self, number: int, order: Request | EmbedRequest) -> None:
        """Pass a request on, unless it was dropped meanwhile."""
        with self._lock:
            if self._unread.pop(number, None) is not None:
                self._orders.put(order)

    def _read(self, message: Message, arrived: float) -> None:
        match message:
            case Generate():
                self._generate(message, arrived)
            case Tokenize():
                self._tokenize(message)
            case Detokenize():
                self._detokenize(message)
            case Embed():
                self._embed(message)

    def _generate(self, ask: Generate, arrived: float) -> None:
        visible = self._visible(ask)
        refusal = self._why_not(ask) or self._far_too_long(ask)
        tokens, chunks = self._tokens(ask) if refusal is None else ([], [])
        refusal = refusal or self._unfit(tokens, ask)
        if refusal:
            self._channel.send(refusal)
            return
        constraints = self._constraints(ask, visible)
        request = Request(
            ask,
            tokens,
            arrived,
            checkpoints=self._checkpoints(ask, tokens),
            chunks=chunks,
            positions=Positions([chunk.span for chunk in chunks]) if chunks else TEXT,
        )
        words = [token for token in tokens if token >= 0]
        limit = min(self._context, len(tokens) + (self._context if ask.max_tokens is None else ask.max_tokens))
        predicted = self._vocab.tokenize(ask.prediction, add_special=False)[: self._context] if ask.prediction else []
        banned = sorted(self._vocab.end_tokens) if ask.ignore_eos and not ask.grammar else []
        speculates = self._spec.lookup and self._model.truncatable and request.speculates
        lookup = Lookup(words) if speculates else None
        for index, constraint in enumerate(constraints):
            sampler = Sampler(ask.sampling, banned=banned, prompt=words, stream=index)
            text = TextStream(ask.stop, ask.stop_pause)
            sequence = Sequence(request, index, list(tokens), limit, sampler, text, visible, constraint)
            sequence.budget = self._budget(ask, visible)
            if lookup:
                sequence.lookup = lookup.fork()
                sequence.prediction = Prediction(predicted) if predicted else None
            request.sequences.append(sequence)
        self._order(ask.id, request)

    def _why_not(self, ask: Generate) -> Refused | None:
        if self._spec.embedding:
            return Refused(
                id=ask.id,
                message=f"{self._spec.name} gives embeddings and generates no text",
                code="model_not_supported",
            )
        outside = [token for token in ask.sampling.logit_bias if not 0 <= token < self._vocab.size]
        if isinstance(ask.prompt, list):
            outside += [token for token in ask.prompt if not 0 <= token < self._vocab.size]
        if outside:
            return Refused(
                id=ask.id,
                message=f"token {outside[0]} is not in the vocabulary of {self._vocab.size} tokens",
                param="prompt" if isinstance(ask.prompt, list) else "logit_bias",
            )
        return None

    def _visible(self, ask: Generate) -> frozenset[int]:
        special = self._vocab.special_tokens
        return frozenset(special[text] for text in ask.visible if text in special)

    def _constraints(self, ask: Generate, visible: frozenset[int]) -> list[OutputConstraint | None]:
        """One for each choice, where a grammar is asked for. Raises RequestError where that cannot be had."""
        choices = range(max(ask.n, ask.best_of))
        if ask.grammar is None:
            return [None for _ in choices]
        return [self._grammars.constraint(ask.grammar, visible, ignore_eos=ask.ignore_eos) for _ in choices]

    def _budget(self, ask: Generate, visible: frozenset[int]) -> ReasoningBudget | None:
        if ask.reasoning is None:
            return None
        vocab = self._vocab
        closing = vocab.tokenize(ask.reasoning.closing, add_special=False)
        return ReasoningBudget(ask.reasoning, closing, lambda token: vocab.piece(token, special=token in visible))

    def _unfit(self, tokens: list[int], ask: Generate) -> Refused | None:
        if not tokens:
            return Refused(id=ask.id, message="the prompt is empty: give at least one token", param="prompt")
        if len(tokens) >= self._context:
            return self._too_long(ask, len(tokens), f"{len(tokens)}")
        if tokens[-1] < 0:
            text = "the prompt ends with an image or a sound: add text behind it"
            return Refused(id=ask.id, message=text, param="prompt")
        return None

    def _far_too_long(self, ask: Generate) -> Refused | None:
        """What a text is answered whose beginning has more tokens than there is room for: the rest may take seconds."""
        most = max(LONG_WORDS * self._context, QUICKLY_READ)
        if not isinstance(ask.prompt, str) or ask.media or len(ask.prompt) <= most:
            return None
        beginning = len(self._vocab.tokenize(ask.prompt[:most], add_special=False, parse_special=ask.parse_special))
        return self._too_long(ask, beginning, f"more than {beginning}") if beginning > self._context else None

    def _too_long(self, ask: Generate, tokens: int, told: str) -> Refused:
        return Refused(
            id=ask.id,
            message=f"the prompt has {told} tokens, which exceeds the available context size: the "
            f"context holds {self._context}, answer included; "
            "shorten the prompt or serve the model with a larger --ctx",
            code="context_length_exceeded",
            param="prompt",
            figures={"n_prompt_tokens": tokens, "n_ctx": self._context},  # llama-server's names
        )

    def _tokens(self, ask: Generate, end: int | None = None) -> tuple[list[int], list[Chunk]]:
        """A prompt's tokens, or those of its text up to offset `end`, and what it shows. Raises RequestError."""
        if isinstance(ask.prompt, list):
            return ask.prompt, []
        media = ask.media if end is None else [medium for medium in ask.media if medium.at < end]
        return self._split(ask.prompt[:end], media, add_special=ask.add_special, parse_special=ask.parse_special)

    def _split(
        self, text: str, media: list[Medium], *, add_special: bool, parse_special: bool
    ) -> tuple[list[int], list[Chunk]]:
        """The tokens of a text with media. Raises RequestError where the model does not take them."""
        if not media:
            return self._vocab.tokenize(text, add_special=add_special, parse_special=parse_special), []
        if self._projector is None:
            raise RequestError(NO_PROJECTOR, code="model_not_supported", param="messages")
        parts: list[str | Medium] = []
        at = 0
        for medium in media:
            parts += [text[at : medium.at], medium]
            at = medium.at
        own_bos = self._vocab.add_bos and text.startswith(self._vocab.text(self._vocab.bos))
        return self._projector.tokenize(
            [*parts, text[at:]], add_special=add_special and not own_bos, parse_special=parse_special
        )

    def _checkpoints(self, ask: Generate, tokens: list[int]) -> list[int]:
        """Where to save states that cannot be cut: where messages end, and before the token that gives logits."""
        if self._model.truncatable:
            return []
        found = {len(tokens) - 1}
        if isinstance(ask.prompt, str):
            for boundary in ask.boundaries[-2:]:
                head, _ = self._tokens(ask, boundary)
                if head == tokens[: len(head)]:
                    found.add(len(head))
        return sorted(found - {0})

    def _tokenize(self, message: Tokenize) -> None:
        tokens, _ = self._split(
            message.text, message.media, add_special=message.add_special, parse_special=message.parse_special
        )
        pieces = [self._vocab.piece(token, special=True) for token in tokens] if message.pieces else []
        self._channel.send(Tokens(message.id, tokens, pieces))

    def _detokenize(self, message: Detokenize) -> None:
        outside = next((t for t in message.tokens if not 0 <= t < self._vocab.size), None)
        if outside is None:
            self._channel.send(Text(message.id, self._vocab.detokenize(message.tokens)))
        else:
            text = f"token {outside} is not in the vocabulary of {self._vocab.size} tokens"
            self._channel.send(Refused(id=message.id, message=text, param="tokens"))

    def _embed(self, message: Embed) -> None:
        if not self._spec.embedding:
            text = f"{self._spec.name} was loaded to generate text and gives no embeddings"
            self._channel.send(Refused(id=message.id, message=text, code="model_not_supported"))
            return
        inputs = [self._tokens_to_embed(one, message.query) for one in message.inputs]
        if message.truncate:
            inputs = [tokens[: self._context] for tokens in inputs]
        if fault := next(filter(None, map(self._unfit_to_embed, inputs)), None):
            self._channel.send(Refused(id=message.id, message=fault, param="input"))
        else:
            self._order(message.id, EmbedRequest(message.id, inputs))

    def _tokens_to_embed(self, text: str | list[int], query: str | None) -> list[int]:
        if isinstance(text, list):
            return text
        return self._vocab.tokenize(text) if query is None else pair(self._model, query, text)

    def _unfit_to_embed(self, tokens: list[int]) -> str | None:
        if not 0 < len(tokens) <= self._context:
            return f"an input has {len(tokens)} tokens; give from 1 to {self._context}"
        outside = next((token for token in tokens if not 0 <= token < self._vocab.size), None)
        if outside is None:
            return None
        return f"token {outside} is not in the vocabulary of {self._vocab.size} tokens"


def _size(message: Message) -> int:
    """About how many bytes a message takes in memory."""
    match message:
        case Generate():
            texts = [message.prompt, message.prediction or "", message.grammar.source if message.grammar else ""]
            return sum(map(_size_of, texts)) + sum(len(medium.data) for medium in message.media)
        case Tokenize():
            return _size_of(message.text) + sum(len(medium.data) for medium in message.media)
        case Detokenize():
            return _size_of(message.tokens)
        case Embed():
            return sum(map(_size_of, message.inputs))


def _size_of(text: str | list[int]) -> int:
    return sys.getsizeof(text) if isinstance(text, str) else BYTES_PER_TOKEN * len(text)


def _refused(number: int, error: RequestError) -> Refused:
    return Refused(
        id=number,
        message=error.message,
        status=error.status,
        code=error.code,
        param=error.param,
        retry_after=error.retry_after,
    )
