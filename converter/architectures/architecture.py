"""What a model family is to the converter: a table of tensors, a few metadata fields, and how to read its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from converter.errors import ConversionError
from converter.gguf_format import Field, Fields
from converter.tensor_data import RopeOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from converter.checkpoint import Checkpoint
    from converter.tensor_data import TensorData

Dimension = Literal["vocabulary", "embedding", "feed_forward", "query", "key_value", "head"]
"""The lengths that tensors' shapes are made of, each an attribute of `Hyperparameters`."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How positions are stretched beyond the context a model was trained on: `rope_scaling` in config.json."""

    type: str
    values: Mapping[str, Any]

    def number(self, key: str, default: float | None = None) -> float:
        """One of the values, which has to be a number."""
        value = self.values.get(key, default)
        if not isinstance(value, int | float):
            raise ConversionError(f"config.json: rope scaling of type {self.type} needs a number {key}.")
        return float(value)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """A decoder-only transformer's numbers, as config.json gives them and with Transformers' defaults for the rest."""

    layers: int
    vocabulary: int
    embedding: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head: int
    context: int
    norm_epsilon: float
    rope_base: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool
    sliding_window: int | None

    @property
    def query(self) -> int:
        """Features of all query heads."""
        return self.heads * self.head

    @property
    def key_value(self) -> int:
        """Features of all key heads, and of all value heads."""
        return self.key_value_heads * self.head

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Hyperparameters:
        """Reads config.json.

        Raises:
            ConversionError: a number is missing or no number.
        """

        def integer(key: str, default: int | None = None) -> int:
            value = config.get(key)
            value = default if value is None else value
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                problem = "lacks" if value is None else f"has {value!r} for"
                raise ConversionError(f"config.json {problem} {key}, which has to be a positive whole number.")
            return value

        heads = integer("num_attention_heads")
        rope: dict[str, Any] = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        context = integer("max_position_embeddings", 2048)
        return cls(
            layers=integer("num_hidden_layers"),
            vocabulary=integer("vocab_size"),
            embedding=integer("hidden_size"),
            feed_forward=integer("intermediate_size"),
            heads=heads,
            key_value_heads=integer("num_key_value_heads", heads),
            head=integer("head_dim", max(integer("hidden_size") // heads, 1)),
            context=context,
            norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
            rope_base=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
            rope_scaling=None if rope_type == "default" else RopeScaling(str(rope_type).lower(), rope),
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            sliding_window=config.get("sliding_window") if config.get("use_sliding_window", True) else None,
        )


@dataclass(frozen=True, slots=True)
class TensorRule:
    """One tensor, or one per layer where the names hold `{layer}`.

    Attributes:
        name: the tensor's name in GGUF.
        source: its name in the checkpoint.
        shape: its dimensions, row-major.
        rope: whether its rows are features that llama.cpp rotates in another order (see `RopeOrder`).
        optional: whether a checkpoint may lack it.
    """

    name: str
    source: str
    shape: tuple[Dimension, ...]
    rope: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Architecture:
    """A model family.

    Attributes:
        name: its name in llama.cpp (`general.architecture`).
        model_classes: the classes of config.json's `architectures` that it covers.
        tensors: every tensor the family has.
        metadata: the family's fields beyond those all transformers have.
        generated: tensors that are computed from the configuration.
        ignored: ends of the names of tensors that hold no weights, only constants that llama.cpp computes itself.
    """

    name: str
    model_classes: tuple[str, ...]
    tensors: tuple[TensorRule, ...]
    metadata: Callable[[Hyperparameters], Fields]
    generated: Callable[[Hyperparameters], dict[str, TensorData]] = lambda _: {}
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)

    def fields(self, hyperparameters: Hyperparameters, file_type: int) -> Fields:
        """The architecture's metadata, in llama.cpp's order."""
        return transformer_fields(self.name, hyperparameters, file_type) | {
            f"{self.name}.{key}": field for key, field in self.metadata(hyperparameters).items()
        }

    def map_tensors(self, checkpoint: Checkpoint, hyperparameters: Hyperparameters) -> dict[str, TensorData]:
        """Every tensor of the GGUF file by name, in the order of the model's layers.

        Raises:
            ConversionError: a tensor is missing, superfluous, or not of the shape that the configuration asks for.
        """
        mapped = self.generated(hyperparameters)
        used: set[str] = set()
        for name, source, rule in self._expand(hyperparameters.layers):
            used.add(source)
            tensor = checkpoint.tensors.get(source)
            if tensor is None:
                if rule.optional:
                    continue
                raise ConversionError(f"{checkpoint.folder} lacks tensor {source}.")
            expected = tuple(getattr(hyperparameters, dimension) for dimension in rule.shape)
            if tensor.shape != expected:
                raise ConversionError(
                    f"{tensor.path}: tensor {source} has shape {list(tensor.shape)}, and by config.json it should "
                    f"have {list(expected)}."
                )
            mapped[name] = RopeOrder(tensor, hyperparameters.head) if rule.rope else tensor
        if hyperparameters.tied_embeddings:
            mapped.pop("output.weight", None)
        elif "output.weight" not in mapped:
            raise ConversionError(f"{checkpoint.folder} lacks tensor lm_head.weight, and its embeddings are not tied.")
        self._check_unused(checkpoint, used)
        return mapped

    def notes(self, hyperparameters: Hyperparameters) -> tuple[str, ...]:
        """What llama.cpp will do otherwise than the original model."""
        window = hyperparameters.sliding_window
        if window is None or window >= hyperparameters.context:
            return ()
        return (
            f"llama.cpp attends to the whole context, where the original model attends to the last {window:,} tokens: "
            f"keep the context within {window:,}.",
        )

    def _expand(self, layers: int) -> Iterator[tuple[str, str, TensorRule]]:
        """The rules with layer numbers filled in: those before the layers, the layers one by one, those after."""
        per_layer = [rule for rule in self.tensors if "{layer}" in rule.name]
        first = self.tensors.index(per_layer[0])
        for rule in self.tensors[:first]:
            yield rule.name, rule.source, rule
        for layer in range(layers):
            for rule in per_layer:
                yield rule.name.format(layer=layer), rule.source.format(layer=layer), rule
        for rule in self.tensors[first + len(per_layer) :]:
            yield rule.name, rule.source, rule

    def _check_unused(self, checkpoint: Checkpoint, used: set[str]) -> None:
        unused = [name for name in checkpoint.tensors if name not in used and not name.endswith(self.ignored)]
        if unused:
            others = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
            raise ConversionError(
                f"{checkpoint.folder} holds tensor {unused[0]}{others}, unknown to {self.model_classes[0]}; "
                "leaving weights out would make another model of it."
            )


def transformer_fields(architecture: str, hyperparameters: Hyperparameters, file_type: int) -> Fields:
    """The metadata that every decoder-only transformer has."""
    h = hyperparameters
    fields: Fields = {
        "block_count": Field.u32(h.layers),
        "context_length": Field.u32(h.context),
        "embedding_length": Field.u32(h.embedding),
        "feed_forward_length": Field.u32(h.feed_forward),
        "attention.head_count": Field.u32(h.heads),
        "attention.head_count_kv": Field.u32(h.key_value_heads),
        **_rope_scaling_fields(h.rope_scaling, h.context),
        "rope.freq_base": Field.f32(h.rope_base),
        "attention.layer_norm_rms_epsilon": Field.f32(h.norm_epsilon),
        "attention.key_length": Field.u32(h.head),
        "attention.value_length": Field.u32(h.head),
    }
    return {f"{architecture}.{key}": field for key, field in fields.items()} | {
        "general.file_type": Field.u32(file_type)
    }


def _rope_scaling_fields(scaling: RopeScaling | None, context: int) -> Fields:
    if scaling is None:
        return {}
    match scaling.type:
        case "llama3":  # a tensor of factors instead
            return {}
        case "linear":
            return {
                "rope.scaling.type": Field.string("linear"),
                "rope.scaling.factor": Field.f32(scaling.number("factor")),
            }
        case "yarn":
            return _yarn_fields(scaling, context)
        case other:
            raise ConversionError(
                f"config.json: rope scaling of type {other!r} is not supported; linear, yarn, llama3 are."
            )


def _yarn_fields(scaling: RopeScaling, context: int) -> Fields:
    optional = {
        "extrapolation_factor": "rope.scaling.yarn_ext_factor",
        "attention_factor": "rope.scaling.yarn_attn_factor",
        "beta_fast": "rope.scaling.yarn_beta_fast",
        "beta_slow": "rope.scaling.yarn_beta_slow",
    }
    return {
        "rope.scaling.type": Field.string("yarn"),
        "rope.scaling.factor": Field.f32(scaling.number("factor")),
        "rope.scaling.original_context_length": Field.u32(
            int(scaling.number("original_max_position_embeddings", context))
        ),
        **{
            key: Field.f32(scaling.number(name))
            for name, key in optional.items()
            if scaling.values.get(name) is not None
        },
    }
