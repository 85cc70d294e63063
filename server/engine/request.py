"""A request to generate text, in the one internal form that every protocol translates into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping

GrammarKind = Literal["json_schema", "json_object", "regex", "choice", "lark", "gbnf"]


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


class Beginning(Struct, frozen=True, kw_only=True):
    """From where on an output is held to a grammar, which speaks of what sets it off too.

    With neither `trigger` nor `start` it begins at once, or right behind `behind`.

    Attributes:
        behind: only behind this text (the end of reasoning).
        trigger: a regular expression for what sets it off wherever it comes (the mark of a call). It reaches some
            hundreds of characters back at most. Where it has a group, the grammar begins with that.
        start: one for what sets it off only where the output begins, white space aside (a call without a mark).
        aside: the marks around text in which nothing sets it off (reasoning).
        repeats: whether such text may come anywhere and more than once; else only where the output begins.
    """

    behind: str = ""
    trigger: str = ""
    start: str = ""
    aside: tuple[str, str] | None = None
    repeats: bool = False


class Lead(Struct, frozen=True):
    """What comes before that of which a grammar speaks: an expression in Lark, and the rules that it names."""

    expression: str
    rules: str


class Grammar(Struct, frozen=True):
    """A constraint on the output.

    Attributes:
        source: a JSON Schema, a regex, a JSON array of strings, or a grammar's text.
        begins: from where on it counts; None: from the first token.
        lead: what comes first then.
        calls: tool calls that the output may be instead.
    """

    kind: GrammarKind
    source: str
    begins: Beginning | None = None
    lead: Lead | None = None
    calls: OptionalCalls | None = None

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any]) -> Grammar:
        """The output is JSON that a schema describes."""
        return cls("json_schema", msgspec.json.encode(schema).decode())


class OptionalCalls(NamedTuple):
    """The grammars of tool calls that an output may make instead of following another.

    Attributes:
        first: of an output that makes them, from its beginning or from where the other grammar begins.
        begun: of them alone, wherever they begin: what begins them by its `begins` does so nowhere else.
    """

    first: Grammar
    begun: Grammar


class Medium(Struct, frozen=True):
    """An image or a sound in a text prompt: a file's bytes, and the character offset where it stands."""

    kind: Literal["image", "audio"]
    data: bytes
    at: int


class ReasoningLimit(Struct, frozen=True, kw_only=True):
    """How long an answer may reason, and what ends it then.

    Attributes:
        tokens: how many; 0 ends reasoning as soon as it begins, None leaves it its time.
        begin, end: the marks around reasoning, as they show in the output.
        closing: the text that is forced then; `end` is in it.
        opened: whether the prompt leaves off inside reasoning. Else it begins with `begin`, which is the first text.
        repeats: whether `begin` counts anywhere and several times, all within one budget.
    """

    tokens: int | None
    begin: str
    end: str
    closing: str
    opened: bool = False
    repeats: bool = False


class StopPause(Struct, frozen=True):
    """A stretch of the output in which no stop string counts: from `begin` on, as far as `end`.

    With `opened` the output begins within it.
    """

    begin: str
    end: str
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
    stop_pause: StopPause | None = None
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
