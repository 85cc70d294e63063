"""The request fields that chat completions and completions share, and their translation into the engine's form.

Every field of OpenAI's reference is here or in the endpoint's own schema: honoured, refused by name (`refused`), or
accepted because it means nothing on one's own machine (`MeaninglessFields`). Any other field is refused by name.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import structs
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, field_validator

from server.api.absent import AbsentFields, No, Nothing, One, Yes, Zero
from server.api.strict import LONGEST_STOP_STRING, StrictModel
from server.api.whole_text import WholeTextRequest
from server.engine.request import Generate, Grammar, Sampling
from server.errors import RequestError

if TYPE_CHECKING:
    from server.models.parameters import Parameters

MOST_STOP_STRINGS = 4
MOST_CHOICES = 128
MOST_TOP_LOGPROBS = 20
LARGEST_NUMBER = 2**31 - 1
LONGEST_TOKEN_ID = 10
"""Digits."""

SeedNumber = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class MeaninglessFields(WholeTextRequest):
    """Fields of OpenAI's that are accepted and have no effect: there is no account, fleet or archive behind brim."""

    user: Any = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None


class StreamOptions(StrictModel):
    """What a stream carries beside text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """Accepted and without effect: it pads events against eavesdroppers on a network."""


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


StopStrings = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP_STRING)]],
    Field(max_length=MOST_STOP_STRINGS),
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
]


UNBOUNDED = -1
"""llama-server's length of an answer without a bound of its own."""


def _at_least(least: int) -> AfterValidator:
    def check(value: int | None) -> int | None:
        if value is not None and UNBOUNDED < value < least:
            raise ValueError(f"it should be at least {least}, or -1 for no bound but the context")
        return value

    return AfterValidator(check)


_LONGEST = Field(ge=UNBOUNDED, le=LARGEST_NUMBER, validation_alias=AliasChoices("max_tokens", "n_predict"))
LongestAnswer = Annotated[int | None, _LONGEST, _at_least(1)]
"""Tokens of the longest answer."""
LongestText = Annotated[int | None, _LONGEST, _at_least(0)]
"""The same where 0 has a meaning."""


class ForeignFields(AbsentFields):
    """Further fields of vLLM's and others', taken as long as they say what brim does anyway."""

    min_tokens: Zero = None
    length_penalty: One = None
    use_beam_search: No = None
    stop_token_ids: Nothing = None
    include_stop_str_in_output: No = None
    skip_special_tokens: Yes = None
    spaces_between_special_tokens: Any = None
    """Without effect: special tokens do not show."""
    top_a: Zero = None
    tfs: One = None


class GenerationFields(MeaninglessFields, ForeignFields):
    """What says how to generate. None means: not said, so the model's own default holds."""

    model: str | None = None
    """A model's name; may be left out where just one is loaded."""
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=LARGEST_NUMBER)
    """0 and -1 keep all tokens."""
    min_p: float | None = Field(None, ge=0, le=1)
    seed: SeedNumber | None = None
    stop: StopStrings | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repeat_penalty: float | None = Field(
        None, gt=0, validation_alias=AliasChoices("repeat_penalty", "repetition_penalty")
    )
    repeat_last_n: int | None = Field(None, ge=-1, le=LARGEST_NUMBER)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    """Token ids, as strings, to what is added to their logits."""
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    cache_salt: str | None = None
    """Prefixes are shared only between requests of the same salt."""
    cache_prompt: bool | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    max_time: float | None = Field(None, gt=0)
    """Seconds after which generation ends with what there is."""
    timings: bool | None = Field(None, validation_alias=AliasChoices("timings", "timings_per_token"))
    """Add llama-server's `timings` to the answer."""
    return_progress: bool | None = None
    """Let a stream tell, as llama-server's do, how far the prompt has been computed."""
    grammar: str | None = None
    """A grammar in llama.cpp's GBNF or in Lark, told apart by GBNF's `::=`."""
    guided_json: dict[str, Any] | str | None = Field(None, validation_alias=AliasChoices("guided_json", "json_schema"))
    """A JSON Schema, also as JSON text."""
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(min_length=1)] | None = None
    guided_grammar: str | None = None
    """vLLM's name for `grammar`."""

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token in value or {}:
            if not (token.isdecimal() and len(token) <= LONGEST_TOKEN_ID):
                raise ValueError(f"its keys are token ids, and {token[:40]!r} is not one")
        return value

    def constraint(self, response_format: Grammar | None = None) -> Grammar | None:
        """What the answer is held to.

        Args:
            response_format: what the field of that name says, where the endpoint has it.

        Raises:
            RequestError: several constraints are given, or a schema's text is no JSON object.
        """
        found = {
            "response_format": response_format,
            "grammar": self.grammar and _grammar(self.grammar),
            "guided_grammar": self.guided_grammar and _grammar(self.guided_grammar),
            "guided_json": None if self.guided_json is None else Grammar("json_schema", _schema(self.guided_json)),
            "guided_regex": self.guided_regex and Grammar("regex", self.guided_regex),
            "guided_choice": self.guided_choice and Grammar("choice", _json(self.guided_choice)),
        }
        given = {name: grammar for name, grammar in found.items() if isinstance(grammar, Grammar)}
        if len(given) > 1:
            raise RequestError(f"only one of {', '.join(given)} can hold", code="invalid_value", param=[*given][-1])
        return next(iter(given.values()), None)

    def to_generate(
        self,
        prompt: str | list[int],
        *,
        defaults: Parameters,
        partition: str,
        max_tokens: int | None,
        logprobs: int | None,
    ) -> Generate:
        """The engine's form of this request.

        Args:
            prompt: text or token ids.
            defaults: the model's own parameters, for what the request leaves open.
            partition: the caller's cache partition, divided further here by the request's salt.
            max_tokens: the longest answer; None takes the model's default, `UNBOUNDED` none.
            logprobs: how many alternatives to report for each token; None reports none.
        """
        if max_tokens is None and defaults.num_predict is not None and defaults.num_predict > 0:
            max_tokens = defaults.num_predict
        elif max_tokens == UNBOUNDED:
            max_tokens = None
        return Generate(
            id=0,
            prompt=prompt,
            n=self.n or 1,
            best_of=self.n or 1,
            sampling=self._sampling(defaults),
            max_tokens=max_tokens,
            stop=self.stop if self.stop is not None else list(defaults.stop),
            ignore_eos=bool(self.ignore_eos),
            logprobs=logprobs,
            partition=partition if not self.cache_salt else f"{partition}:{_digest(self.cache_salt)}",
            priority=self.priority or 0,
            max_time=self.max_time,
            cache_prompt=self.cache_prompt is not False,
            progress=bool(self.stream and self.return_progress),
        )

    def _sampling(self, defaults: Parameters) -> Sampling:
        chosen: dict[str, Any] = {}
        for name in _SAMPLING_NAMES:
            asked = getattr(self, name)
            value = asked if asked is not None else getattr(defaults, name)
            if value is not None:
                chosen[name] = value
        if chosen.get("top_k") == -1:
            chosen["top_k"] = 0
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        return Sampling(**chosen, logit_bias=bias)


_SAMPLING_NAMES = tuple(field.name for field in structs.fields(Sampling) if field.name != "logit_bias")


def _grammar(text: str) -> Grammar:
    return Grammar("gbnf" if "::=" in text else "lark", text)


def _schema(given: dict[str, Any] | str) -> str:
    if isinstance(given, dict):
        return _json(given)
    try:
        msgspec.json.decode(given, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise RequestError(f"'guided_json' is no JSON Schema: {error}", param="guided_json") from error
    return given


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _digest(salt: str) -> str:
    return hashlib.sha256(salt.encode()).hexdigest()[:32]
