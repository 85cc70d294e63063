"""A model's parameters: the defaults that requests to it start from, and how it is loaded. Names are Ollama's."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from server.chat.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

ParameterValue = int | float | str | tuple[str, ...]


class Parameters(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the PARAMETER lines of a Modelfile set. None means: not said. `RULES` tells what each one is."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    num_predict: int | None = None
    num_ctx: int | None = None
    num_parallel: int | None = None
    num_gpu: int | None = None
    num_thread: int | None = None
    kv_type: str | None = None
    chat_format: str | None = None

    def items(self) -> Iterator[tuple[str, ParameterValue]]:
        """The parameters that are set, by name."""
        for name, value in structs.asdict(self).items():
            if value is not None and value != ():
                yield name, value

    def over(self, base: Parameters) -> Parameters:
        """These parameters, and `base`'s where nothing is said here."""
        return structs.replace(base, **dict(self.items()))


@dataclass(frozen=True)
class Rule:
    """What values a parameter takes, and what it does."""

    kind: type[int] | type[float] | type[str]
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What the parameter takes, in words: `a number from 0 to 1`."""
        if self.kind is str:
            return f"one of {', '.join(self.choices)}" if self.choices else "a text"
        noun = "a whole number" if self.kind is int else "a number"
        if math.isinf(self.high):
            return f"{noun} from {self.low:g} up"
        return f"{noun} from {self.low:g} to {self.high:.10g}"

    def parse(self, text: str) -> int | float | str:
        """The value that `text` spells. Raises ValueError, whose text says what the parameter takes."""
        if self.kind is str:
            if self.choices and text.lower() not in self.choices:
                raise ValueError(self)
            return text.lower() if self.choices else text
        try:
            value = int(text) if self.kind is int else float(text)
        except ValueError:
            raise ValueError(self) from None
        if not self.low <= value <= self.high or math.isinf(value):
            raise ValueError(self)
        return value


RULES = {
    "temperature": Rule(float, "how freely tokens are drawn; 0 always takes the likeliest", 0),
    "top_k": Rule(int, "draw from this many likeliest tokens; 0 from all", 0),
    "top_p": Rule(float, "draw from the likeliest tokens that together have this probability", 0, 1),
    "min_p": Rule(float, "leave out tokens less probable than this share of the likeliest one's probability", 0, 1),
    "seed": Rule(int, "the same seed and the same request give the same answer", 0, 2**32 - 2),
    "repeat_penalty": Rule(float, "makes the latest tokens less likely; 1 does nothing", 0.01, 10),
    "repeat_last_n": Rule(int, "how many of the latest tokens repeat_penalty looks at; -1 at all", -1),
    "presence_penalty": Rule(float, "makes tokens that the answer has less likely, however often", -2, 2),
    "frequency_penalty": Rule(float, "makes tokens less likely each time that the answer has them", -2, 2),
    "stop": Rule(str, "ends the answer where this text would begin; may be repeated"),
    "num_predict": Rule(int, "the longest answer, in tokens; -1 is up to the end of the context", -1),
    "num_ctx": Rule(int, "context length of a request, in tokens", 1),
    "num_parallel": Rule(int, "how many requests are decoded side by side", 1, 256),
    "num_gpu": Rule(int, "layers on the GPU; leave it out to let brim choose", 0),
    "num_thread": Rule(int, "CPU threads; leave it out to let brim choose", 1),
    "kv_type": Rule(str, "type of the KV cache", choices=("f16", "q8_0", "q4_0", "f32")),
    "chat_format": Rule(
        str,
        "how the model writes reasoning and tool calls; told from its template where not said",
        choices=tuple(sorted(style.name for style in FORMATS)),
    ),
}

SYNONYMS = {"max_tokens": "num_predict"}

MEANT = {
    "n_ctx": "num_ctx",
    "context_length": "num_ctx",
    "max_new_tokens": "num_predict",
    "n_predict": "num_predict",
    "repetition_penalty": "repeat_penalty",
    "n_gpu_layers": "num_gpu",
    "threads": "num_thread",
    "parallel": "num_parallel",
    "cache_type": "kv_type",
}
"""Names that other programs have for these parameters."""

NOT_IN_BRIM = frozenset(
    {
        *("mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "typical_p", "penalize_newline", "num_keep"),
        *("num_batch", "main_gpu", "low_vram", "f16_kv", "use_mmap", "use_mlock", "vocab_only", "logits_all", "numa"),
    }
)
"""Parameters of Ollama's, present or past, that brim has no use for."""


class UnknownParameterError(ValueError):
    """There is no such parameter. The text says so, and what may be meant."""


def canonical_name(name: str) -> str:
    """A parameter's own name, for it or a synonym in any case. Raises UnknownParameterError."""
    lower = name.lower()
    lower = SYNONYMS.get(lower, lower)
    if lower in RULES:
        return lower
    if lower in NOT_IN_BRIM:
        raise UnknownParameterError(f"brim has no parameter {lower}; delete the line")
    near = [MEANT[lower]] if lower in MEANT else difflib.get_close_matches(lower, RULES, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(RULES)}"
    raise UnknownParameterError(f"there is no parameter {name!r}; {hint}")


def parse_parameter(name: str, text: str) -> int | float | str:
    """The value of the parameter `name` (its canonical one) that `text` spells.

    Raises:
        ValueError: it takes other values; the text says which, as in `a number from 0 to 1`.
    """
    return RULES[name].parse(text)
