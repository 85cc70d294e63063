"""`options`, `format` and `think`: how an answer is generated and what it must look like.

Every option of Ollama's is here: honoured, refused unless it is set to do nothing, or accepted because its matter is
decided when a model is loaded. Any other is refused by name.
Source: https://github.com/ollama/ollama/blob/main/docs/modelfile.md, and `Options` in its api/types.go.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from server.api.media import Base64
from server.api.ollama.wire import KeepAlive, NamedModel
from server.api.openai.fields import MOST_TOP_LOGPROBS
from server.api.sampling import longest_answer, sampling_of
from server.api.strict import LONGEST_STOP_STRING, StrictModel
from server.engine.request import Generate, Grammar
from server.models.loading import LoadedModel
from server.models.parameters import Parameters

MOST_STOP_STRINGS = 64


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _only(neutral: float) -> AfterValidator:
    """Accept only the value with which an option does nothing."""

    def check(value: float | None) -> float | None:
        if value not in (None, neutral):
            raise ValueError(f"brim does not sample so; leave it out, or give {neutral:g}")
        return value

    return AfterValidator(check)


StopString = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP_STRING)]
StopStrings = Annotated[
    Annotated[list[StopString], Field(max_length=MOST_STOP_STRINGS)],
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
]


class Options(StrictModel):
    """How to generate. None means: not said, so the model's own default holds."""

    temperature: float | None = Field(default=None, ge=0)
    top_k: int | None = Field(default=None, ge=-1)
    """0 and -1 keep all tokens."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    """A negative one is none."""
    num_predict: int | None = Field(default=None, ge=-2)
    """0 and less go on to the end of the context."""
    stop: StopStrings | None = None
    repeat_penalty: float | None = Field(default=None, gt=0)
    repeat_last_n: int | None = Field(default=None, ge=-1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)

    mirostat: Annotated[int | None, _only(0)] = None
    typical_p: Annotated[float | None, _only(1)] = None
    tfs_z: Annotated[float | None, _only(1)] = None

    # Without effect: they tune mirostat, are gone from Ollama, or are decided when the model is loaded.
    mirostat_eta: float | None = None
    mirostat_tau: float | None = None
    penalize_newline: bool | None = None
    num_keep: int | None = None
    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None
    vocab_only: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    embedding_only: bool | None = None

    def generate(self, prompt: str | list[int], model: LoadedModel, partition: str, logprobs: int | None) -> Generate:
        """The engine's form of these options, over the model's own.

        Args:
            prompt: text or token ids; empty where a chat's is rendered later.
            model: whose defaults hold for what is left open.
            partition: the caller's cache partition.
            logprobs: how many alternatives to report for each token; None reports none.
        """
        defaults = model.source.parameters
        asked = Parameters(
            temperature=self.temperature,
            top_k=None if self.top_k is None else max(self.top_k, 0),
            top_p=self.top_p,
            min_p=self.min_p,
            seed=None if self.seed is None or self.seed < 0 else self.seed,
            repeat_penalty=self.repeat_penalty,
            repeat_last_n=self.repeat_last_n,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )
        unbounded = self.num_predict is not None and self.num_predict <= 0
        return Generate(
            id=0,
            prompt=prompt,
            sampling=sampling_of(asked, defaults),
            max_tokens=None if unbounded else longest_answer(self.num_predict, defaults),
            stop=list(defaults.stop) if self.stop is None else self.stop,
            logprobs=logprobs,
            partition=partition,
        )


def _format(value: Any) -> Any:
    return None if value == "" else value


Images = list[Base64] | None
"""Image files."""


class GenerationRequest(NamedModel):
    """What asking for a chat's next message and for a text's continuation have in common."""

    options: Options = Options()
    format: Annotated[
        Literal["json"] | dict[str, Any] | None, BeforeValidator(_format, json_schema_input_type=str | dict[str, Any])
    ] = None
    """`json` for any JSON object, or a JSON Schema."""
    think: bool | Literal["low", "medium", "high"] | None = None
    """Whether to reason first, and how much; left out, the model's template decides."""
    stream: bool = True
    keep_alive: KeepAlive | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_TOP_LOGPROBS)
    truncate: bool | None = None
    """Without effect, as is the next: a prompt that does not fit is refused, and nothing is dropped from it."""
    shift: bool | None = None

    @property
    def grammar(self) -> Grammar | None:
        """What the answer's text is held to."""
        if self.format is None:
            return None
        if self.format == "json":
            return Grammar("json_object", "")
        return Grammar.of_schema(self.format)

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to report for each token; None reports no log-probabilities."""
        return self.top_logprobs if self.logprobs or self.top_logprobs else None
