"""The requests of POST /completion and /infill, by llama-server's names.

Source of the fields and their defaults: llama.cpp, tools/server/README.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from server.api.absent import AbsentFields, No
from server.api.openai.fields import LONGEST_TOKEN_ID
from server.api.sampling import sampling_of
from server.api.strict import LONGEST_STOP_STRING, StrictModel
from server.engine.request import Generate, Grammar
from server.models.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.api.context import Context
    from server.engine.request import Sampling
    from server.models.loading import LoadedModel

MOST_PROMPTS = 128
MOST_PROBABILITIES = 20
MOST_STOP_STRINGS = 32
LARGEST = 2**31 - 1
DEFAULTS = Parameters(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
"""llama-server's, for what neither the request nor the model's Modelfile says."""


Token = Annotated[int, Field(ge=0, le=LARGEST)]
Mixed = Annotated[list[Token | str], Field(min_length=1)]


Prompt = str | Mixed


def _without_objects(value: Any) -> Any:
    """A prompt may be an object, so that media can come along: its text in its place. Raises ValueError for media."""
    if isinstance(value, list):
        parts: list[Any] = value  # pyright: ignore[reportUnknownVariableType] -- its items are checked next
        return [_without_objects(part) for part in parts]
    if not isinstance(value, dict):
        return value
    given: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] -- JSON has no other keys
    if given.get("multimodal_data"):
        raise ValueError("brim takes no multimodal_data here: send media in a chat message")
    if "prompt_string" not in given:
        raise ValueError("a prompt that is an object needs prompt_string")
    return given["prompt_string"]


def _as_tuples(value: Any) -> Any:
    """JSON has no tuples."""
    if not isinstance(value, list):
        return value
    pairs: list[Any] = value  # pyright: ignore[reportUnknownVariableType] -- its items are checked next
    return [tuple(pair) if isinstance(pair, list) else pair for pair in pairs]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


Prompts = Annotated[
    Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=MOST_PROMPTS)], BeforeValidator(_without_objects)
]
StopString = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP_STRING)]
Bias = float | Literal[False]
"""What is added to a token's logit; false bans it."""
Biases = Annotated[list[tuple[Token | str, Bias]] | dict[str, Bias], BeforeValidator(_as_tuples)]


class SamplingFields(AbsentFields):
    """What /completion and /infill share."""

    model: str | None = None
    """A model's name; may be left out where just one is loaded."""
    n_predict: int | None = Field(None, ge=-1, le=LARGEST)
    """-1 goes on to the end of the context."""
    n_cmpl: int = Field(1, ge=1, le=128)
    stream: bool = False
    temperature: float | None = None
    """0 and less are greedy."""
    top_k: int | None = Field(None, ge=-LARGEST, le=LARGEST)
    """0 and less keep all tokens."""
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-1, lt=2**63)
    """-1 draws one."""
    stop: list[StopString] | None = Field(None, max_length=MOST_STOP_STRINGS)
    repeat_penalty: float | None = Field(None, gt=0)
    repeat_last_n: int | None = Field(None, ge=-1, le=LARGEST)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Biases | None = None
    """Pairs of a token, or a text whose tokens are all meant, and what to add to its logit."""
    ignore_eos: bool = False
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    n_probs: int = Field(0, ge=0, le=MOST_PROBABILITIES)
    """How many of the likeliest tokens to tell at each place, before any sampler."""
    t_max_predict_ms: int | None = Field(None, ge=0, le=LARGEST)
    """Milliseconds from the request's arrival after which generation ends; 0 is without end."""
    cache_prompt: bool = True
    return_tokens: bool = False
    return_progress: bool = False
    """Let a stream tell how far the prompt has been computed."""
    response_fields: list[str] | None = None
    timings_per_token: No = None

    @model_validator(mode="after")
    def _one_constraint(self) -> SamplingFields:
        if self.grammar and self.json_schema is not None:
            raise ValueError("only one of grammar and json_schema can hold")
        return self

    async def generate(self, prompt: str | list[int], model: LoadedModel, context: Context) -> Generate:
        """How to continue a prompt."""
        length = self.n_predict if self.n_predict is not None else model.source.parameters.num_predict
        return Generate(
            id=0,
            prompt=prompt,
            n=self.n_cmpl,
            best_of=self.n_cmpl,
            sampling=self._sampling(model, await self._biases(model)),
            max_tokens=None if length is None or length < 0 else length,
            stop=self.stop if self.stop is not None else list(model.source.parameters.stop),
            ignore_eos=self.ignore_eos,
            logprobs=self.n_probs or None,
            grammar=self._grammar(),
            partition=context.partition,
            max_time=self.t_max_predict_ms / 1000 if self.t_max_predict_ms else None,
            cache_prompt=self.cache_prompt,
            progress=self.stream and self.return_progress,
        )

    def _sampling(self, model: LoadedModel, biases: Mapping[int, float]) -> Sampling:
        asked = Parameters(
            temperature=None if self.temperature is None else max(0.0, self.temperature),
            top_k=None if self.top_k is None else max(0, self.top_k),
            top_p=self.top_p,
            min_p=self.min_p,
            seed=None if self.seed == -1 else self.seed,
            repeat_penalty=self.repeat_penalty,
            repeat_last_n=self.repeat_last_n,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )
        return msgspec.structs.replace(
            sampling_of(asked, model.source.parameters.over(DEFAULTS)), logit_bias=dict(biases)
        )

    def _grammar(self) -> Grammar | None:
        if self.json_schema is not None:
            return Grammar.of_schema(self.json_schema)
        return Grammar("gbnf", self.grammar) if self.grammar else None

    async def _biases(self, model: LoadedModel) -> dict[int, float]:
        pairs = self.logit_bias.items() if isinstance(self.logit_bias, dict) else self.logit_bias or ()
        found: dict[int, float] = {}
        for named, bias in pairs:
            is_token = isinstance(named, int) or (named.isdecimal() and len(named) <= LONGEST_TOKEN_ID)
            tokens = [min(int(named), LARGEST)] if is_token else (await model.engine.tokenize(str(named))).tokens
            found |= dict.fromkeys(tokens, -math.inf if bias is False else bias)
        return found


class CompletionRequest(SamplingFields):
    """One or several prompts to be continued: texts, token ids, or a list that mixes both."""

    prompt: Prompts

    def prompts(self) -> list[Prompt]:
        """The prompts. A list of texts is several; one with a number in it is a single prompt."""
        given: list[Any] = self.prompt if isinstance(self.prompt, list) else [self.prompt]
        return [given] if any(isinstance(part, int) for part in given) else given


class ExtraFile(StrictModel):
    """A further file, for context."""

    text: str
    filename: str = "tmp"


class InfillRequest(SamplingFields):
    """A text with a gap."""

    input_prefix: str
    input_suffix: str
    input_extra: list[ExtraFile] | None = None
    prompt: str = ""
    """What the text in the gap begins with."""
