"""What crosses the process boundary between the server and a model's worker.

Every message is a msgspec struct, tagged by its name and sent as MessagePack over `server.engine.channel`.
The server sends a `ToWorker`, the worker answers with `FromWorker`.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct, field

from server.engine.load_spec import LoadSpec, ModelInfo
from server.engine.request import Generate, Medium

FinishReason = Literal["stop", "length", "cancelled", "time", "error"]


class Cancel(Struct, frozen=True, tag=True):
    """Stop generating for a request; nothing more is sent for it."""

    id: int


class Tokenize(Struct, frozen=True, kw_only=True, tag=True):
    """Ask for the token ids of a text, with `pieces` also for each token's bytes. Answered by `Tokens`."""

    id: int
    text: str
    media: list[Medium] = field(default_factory=list[Medium])
    """What the text shows: tokens below zero stand for it."""
    add_special: bool = False
    parse_special: bool = True
    pieces: bool = False


class Detokenize(Struct, frozen=True, tag=True):
    """Ask for the text of tokens. Answered by `Text`."""

    id: int
    tokens: list[int]


class Embed(Struct, frozen=True, kw_only=True, tag=True):
    """Embed each input: text or tokens. Answered by `Embeddings`."""

    id: int
    inputs: list[str | list[int]]
    query: str | None = None
    """For a model that ranks: score each input, a text, against this."""
    truncate: bool = False
    """Cut what is too long instead of refusing it."""


class GetStats(Struct, frozen=True, tag=True):
    """Ask for the worker's figures. Answered by `Stats`."""

    id: int


class Shutdown(Struct, frozen=True, tag=True):
    """Stop taking requests; end the running ones within `grace` seconds, then exit."""

    grace: float


ToWorker = LoadSpec | Generate | Cancel | Tokenize | Detokenize | Embed | GetStats | Shutdown


class LoadProgress(Struct, frozen=True, tag=True):
    """How far loading has come: `fraction`, 0 to 1, of the stage."""

    fraction: float
    stage: str = "loading weights"


class Ready(Struct, frozen=True, tag=True):
    """The model is loaded and takes requests."""

    info: ModelInfo


class LoadFailed(Struct, frozen=True, tag=True):
    """The model could not be loaded; the fields are those of `LoadError`. The worker then exits."""

    message: str
    out_of_memory: bool = False


class Warned(Struct, frozen=True, tag=True):
    """Something for the server's log."""

    text: str


class TokenLogprob(Struct, frozen=True):
    """A token's bytes and log-probability, and in `top` the likeliest tokens in its place."""

    token: int
    piece: bytes
    logprob: float
    top: list[tuple[int, bytes, float]] = field(default_factory=list[tuple[int, bytes, float]])


class PromptProgress(Struct, frozen=True):
    """How far a prompt has been computed: of `total` tokens those `processed`, the `cached` ones included."""

    total: int
    cached: int
    processed: int
    seconds: float
    """Since the request left the queue."""


class Delta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step added to one choice of one request."""

    id: int
    index: int = 0
    text: str = ""
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    progress: PromptProgress | None = None
    finish: FinishReason | None = None
    stop_string: str | None = None
    """The stop string that ended the choice; None where the model ended it itself."""


class Usage(Struct, frozen=True, kw_only=True):
    """What a finished request cost. Times are in seconds."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    queue_seconds: float = 0.0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    predicted_tokens: int = 0
    """Those of the drafted tokens that came from the request's prediction."""
    accepted_predicted_tokens: int = 0


class Done(Struct, frozen=True):
    """A request is over: every choice has finished."""

    id: int
    usage: Usage


class Steps(Struct, frozen=True, tag=True):
    """All that one step of the engine produced, for all requests, in one message."""

    deltas: list[Delta]
    done: list[Done] = field(default_factory=list[Done])


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """A request that could not be taken or went wrong; the fields are those of `RequestError`."""

    id: int
    message: str
    status: int = 400
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    figures: dict[str, int] = field(default_factory=dict[str, int])


class Tokens(Struct, frozen=True, tag=True):
    """The answer to `Tokenize`; `pieces` is empty where they were not asked for."""

    id: int
    tokens: list[int]
    pieces: list[bytes] = field(default_factory=list[bytes])


class Text(Struct, frozen=True, tag=True):
    """The answer to `Detokenize`."""

    id: int
    text: str


class Embeddings(Struct, frozen=True, tag=True):
    """One float32 vector per input, as raw little-endian bytes, and how many tokens each input had."""

    id: int
    vectors: list[bytes]
    token_counts: list[int]


class Histogram(Struct, frozen=True):
    """Cumulative counts for the upper bounds in `bounds` (seconds or items), plus the sum of all observations."""

    bounds: list[float]
    counts: list[int]
    total: float
    count: int


class Stats(Struct, frozen=True, kw_only=True, tag=True):
    """Counters (monotonic), gauges and histograms of one worker, by their Prometheus names without the `brim_` prefix.

    A label is written into the key: `prefix_cache_hits_total{tier="ram"}`.
    """

    id: int
    counters: dict[str, float] = field(default_factory=dict[str, float])
    gauges: dict[str, float] = field(default_factory=dict[str, float])
    histograms: dict[str, Histogram] = field(default_factory=dict[str, Histogram])


FromWorker = LoadProgress | Ready | LoadFailed | Warned | Steps | Refused | Tokens | Text | Embeddings | Stats

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """Serialise a message for the other side."""
    return _encoder.encode(message)


def decode_to_worker(data: bytes) -> ToWorker:
    """Read a message that the server sent. Raises msgspec.DecodeError where it is not one."""
    return _to_worker.decode(data)


def decode_from_worker(data: bytes | bytearray) -> FromWorker:
    """Read a message that a worker sent. Raises msgspec.DecodeError where it is not one."""
    return _from_worker.decode(data)
