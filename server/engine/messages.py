"""What crosses the process boundary between the server and a model's worker, and the one internal form of a request.

Every message is a msgspec struct, tagged by its name and sent as MessagePack over ZeroMQ.
The server sends a `ToWorker`, the worker answers with `FromWorker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping

FinishReason = Literal["stop", "length", "cancelled", "time", "error"]
GrammarKind = Literal["json_schema", "json_object", "regex", "choice", "lark", "gbnf"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]


class Placement(Struct, frozen=True, kw_only=True):
    """Where a model's parts go. Made by the planner; the worker obeys it.

    `devices` are ggml device names in llama.cpp's order (`CUDA0`, `RPC0`); empty means the CPU alone. `tensor_split`
    has one weight per device. `tensor_overrides` are pairs of a tensor-name regex and a buffer-type name (`CPU`).
    """

    devices: tuple[str, ...] = ()
    n_gpu_layers: int = 0
    tensor_split: tuple[float, ...] = ()
    tensor_overrides: tuple[tuple[str, str], ...] = ()
    offload_kv: bool = True
    n_batch: int = 2048
    n_ubatch: int = 512
    summary: str = "all layers on the CPU"


class LoadSpec(Struct, frozen=True, kw_only=True, tag=True):
    """Everything a worker needs to load a model and serve it. Sizes are in bytes, lengths in tokens."""

    path: str
    name: str
    digest: str
    """Content digest of the model file; part of the key of cached KV state."""
    placement: Placement = Placement()
    context: int = 0
    """Context length of one request; 0 takes the model's own."""
    kv_cells: int = 0
    """Cells of the one pool of KV cells that requests share; 0 is as many as `context`."""
    parallel: int = 8
    """Requests decoded side by side."""
    kv_type: Literal["f16", "q8_0", "q4_0", "f32"] = "f16"
    kv_unified: bool | None = None
    """One pool of KV cells for all sequences, or a buffer for each; None lets the worker choose."""
    rpc: tuple[str, ...] = ()
    threads: int = 0
    """CPU threads; 0 measures and chooses."""
    adapters: tuple[tuple[str, float], ...] = ()
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    queue_limit: int = 256
    cache_ram: int = 0
    cache_disk: int = 0
    cache_dir: str = ""
    state_dir: str = ""
    """Where measurements of this machine are remembered."""
    draft_path: str = ""
    draft_placement: Placement = Placement(n_batch=512)
    """Where the draft goes: the CPU, unless the planner says otherwise."""
    projector_path: str = ""
    """The multimodal projector's file, if the model has one."""
    projector_device: str = ""
    """The ggml device that it runs on; empty is the CPU."""
    lookup: bool = True
    """Speculate by prompt lookup while it pays."""
    embedding: bool = False
    """Serve embeddings instead of text."""
    pooling: Pooling | None = None


class Sampling(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen. The order is: penalties and bias, grammar, top-k, top-p, min-p, temperature."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    """How many of the latest tokens the repeat penalty sees; the other two count generated tokens, as OpenAI's do."""
    logit_bias: dict[int, float] = field(default_factory=dict[int, float])


class Grammar(Struct, frozen=True):
    """A constraint on the output. `source` is a JSON Schema, a regex, a JSON array of strings, or a grammar's text.

    With `trigger`, the constraint starts only after the output has come to contain that string (lazy tool calls).
    """

    kind: GrammarKind
    source: str
    trigger: str | None = None
    behind: str | None = None
    """The trigger counts only after the output has come to contain this string (the end of reasoning)."""

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any]) -> Grammar:
        """The output is JSON that a schema describes."""
        return cls("json_schema", msgspec.json.encode(schema).decode())


class Medium(Struct, frozen=True):
    """An image or a sound in a text prompt: a file's bytes, and the character offset where it stands."""

    kind: Literal["image", "audio"]
    data: bytes
    at: int


class ReasoningLimit(Struct, frozen=True, kw_only=True):
    """How long an answer may reason, and what ends it then.

    Attributes:
        tokens: how many; 0 ends reasoning as soon as it begins.
        begin, end: the marks around reasoning, as they show in the output.
        closing: the text that is forced then; `end` is in it.
        opened: whether the prompt leaves off inside reasoning. Else it begins with `begin`, which is the first text.
        repeats: whether `begin` counts anywhere and several times, all within one budget.
    """

    tokens: int
    begin: str
    end: str
    closing: str
    opened: bool = False
    repeats: bool = False


class StopPause(Struct, frozen=True):
    """A stretch of the output in which no stop string counts: from `begin` on, as far as `end`, or to the last.

    With `opened` the output begins within it.
    """

    begin: str
    end: str | None
    opened: bool = False


class Generate(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One request to generate text: the internal form that every protocol translates into."""

    id: int
    prompt: str | list[int]
    media: list[Medium] = field(default_factory=list[Medium])
    """What a text prompt shows, by ascending offset."""
    parse_special: bool = True
    """Whether special tokens spelled out in a text prompt are read as such."""
    add_special: bool = True
    """Whether the tokenizer adds its BOS to a text prompt (never a second one)."""
    n: int = 1
    best_of: int = 1
    """Candidates generated; the `n` of highest mean log-probability are returned."""
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None generates to the end of the context."""
    stop: list[str] = field(default_factory=list[str])
    stop_pauses: list[StopPause] = field(default_factory=list[StopPause])
    visible: list[str] = field(default_factory=list[str])
    """Special tokens, by their text, that show in the output instead of being hidden; one that ends the answer does so
    all the same. Texts that are no special token of the model's are ignored: their text shows anyway."""
    ignore_eos: bool = False
    logprobs: int | None = None
    """None: none; N: the chosen token's and those of the N likeliest."""
    prompt_logprobs: bool = False
    """Also give log-probabilities of the prompt's tokens (echo)."""
    grammar: Grammar | None = None
    reasoning: ReasoningLimit | None = None
    prediction: str = ""
    """A text that the answer is expected to be much like: speculation proposes from it."""
    partition: str = ""
    """KV state is shared only inside a partition."""
    priority: int = 0
    """Higher goes first in the queue."""
    max_time: float | None = None
    """Seconds from arrival after which generation ends with reason `time`."""
    cache_prompt: bool = True
    progress: bool = False
    """Also tell, after each piece of the prompt, how far it has been computed."""
    boundaries: list[int] = field(default_factory=list[int])
    """Character offsets where a message ends in a text prompt: checkpoints for models whose state cannot be cut."""


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


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What the server needs to know of a loaded model."""

    name: str
    architecture: str
    description: str
    n_params: int
    n_bytes: int
    n_vocab: int
    n_layers: int
    n_embd: int
    context: int
    """Context length of one request, in tokens."""
    context_train: int
    parallel: int
    kv_unified: bool
    chat_template: str | None
    bos_token: str
    eos_token: str
    eot_token: str
    add_bos: bool
    fim: bool
    """Whether the vocabulary has fill-in-the-middle tokens."""
    special_tokens: dict[str, int] = field(default_factory=dict[str, int])
    """All control and user-defined tokens of the vocabulary, by their text."""
    fim_tokens: dict[str, str] = field(default_factory=dict[str, str])
    """Those of `prefix`, `suffix`, `middle`, `repository` and `file` that there are, to their text."""
    device_bytes: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes this model holds on each device, as llama.cpp reports them."""
    companion_bytes: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """The same of what was loaded beside it, by its role: `draft` or `projector`."""
    threads: int = 0
    threads_batch: int = 0
    vision: bool = False
    """Whether prompts may show images. `hearing`: whether they may hold sounds."""
    hearing: bool = False
    embedding: bool = False
    pooling: Pooling = "none"
    load_seconds: float = 0.0


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


FromWorker = LoadProgress | Ready | LoadFailed | Steps | Refused | Tokens | Text | Embeddings | Stats

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """Serialise a message for the other side."""
    return _encoder.encode(message)


def decode_to_worker(data: bytes) -> ToWorker:
    """Read a message that the server sent. Raises msgspec.DecodeError where it is not one."""
    return _to_worker.decode(data)


def decode_from_worker(data: bytes) -> FromWorker:
    """Read a message that a worker sent. Raises msgspec.DecodeError where it is not one."""
    return _from_worker.decode(data)
