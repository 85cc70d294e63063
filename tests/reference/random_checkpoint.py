"""Makes Hugging Face checkpoints of any shape with random weights: the same bytes from the same seed, everywhere."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from converter.pretokenizer import LLAMA_3, QWEN_2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
PART = 1 << 22
"""Values drawn at once, so that a checkpoint of any size is written with little memory."""

TRAINING_TEXT = (
    "Once upon a time, there was a little fox who counted: 1, 22, 333, 4444. She'd say it's late!",
    "Der Bär läuft über die Brücke; garçon, déjà vu, naïve café. Привет, мир! 你好，世界。こんにちは 🦊🎉",
    "def add(first, second):\n    return first + second\n\n\nfor line in lines:\n\tprint(line.strip())\n",
    "The converter reads a checkpoint and writes a file. They're sure that we'll see what I've DONE.   ",
)
"""What the tokenizers are trained on: words, numbers, accents, other scripts, code, white space."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

PreTokenizer = Literal["llama-3", "qwen2", "gpt-2", "digits"]


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer's lengths; `config` adds to config.json or overrides it."""

    layers: int = 2
    embedding: int = 64
    feed_forward: int = 96
    heads: int = 4
    key_value_heads: int = 2
    head: int = 16
    vocabulary: int = 384
    context: int = 256
    tied: bool = False
    biases: bool = False
    model_class: str = "LlamaForCausalLM"
    config: dict[str, Any] = field(default_factory=dict[str, Any])

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the model's order."""
        query, key_value = self.heads * self.head, self.key_value_heads * self.head
        yield "model.embed_tokens.weight", (self.vocabulary, self.embedding)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (self.embedding,)
            for name, rows in (("q_proj", query), ("k_proj", key_value), ("v_proj", key_value)):
                yield f"{prefix}.self_attn.{name}.weight", (rows, self.embedding)
                if self.biases:
                    yield f"{prefix}.self_attn.{name}.bias", (rows,)
            yield f"{prefix}.self_attn.o_proj.weight", (self.embedding, query)
            yield f"{prefix}.post_attention_layernorm.weight", (self.embedding,)
            yield f"{prefix}.mlp.gate_proj.weight", (self.feed_forward, self.embedding)
            yield f"{prefix}.mlp.up_proj.weight", (self.feed_forward, self.embedding)
            yield f"{prefix}.mlp.down_proj.weight", (self.embedding, self.feed_forward)
        yield "model.norm.weight", (self.embedding,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, self.embedding)

    def config_json(self, dtype: str) -> dict[str, Any]:
        """The config.json of a model of this shape."""
        return {
            "architectures": [self.model_class],
            "model_type": self.model_class.removesuffix("ForCausalLM").lower(),
            "hidden_size": self.embedding,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype],
        } | self.config


def make_checkpoint(
    folder: Path,
    shape: Shape,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    seed: int = 0,
    pre_tokenizer: PreTokenizer = "qwen2",
    chat_template: Any = CHAT_TEMPLATE,
) -> Path:
    """Writes a checkpoint: config.json, safetensors in `shards` files, a byte-level BPE tokenizer.json.

    Args:
        folder: where to; it is made.
        shape: the model's lengths.
        dtype: F32, F16 or BF16.
        shards: number of safetensors files.
        seed: of the weights.
        pre_tokenizer: how the tokenizer splits text.
        chat_template: what tokenizer_config.json says under `chat_template`.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", shape.config_json(dtype))
    tokenizer = make_tokenizer(pre_tokenizer, shape.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    bos = SPECIAL_TOKENS[0] if pre_tokenizer == "llama-3" else None
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": SPECIAL_TOKENS[2],
        "pad_token": SPECIAL_TOKENS[0],
        "chat_template": chat_template,
    }
    _write_json(folder / "tokenizer_config.json", {key: value for key, value in settings.items() if value is not None})
    _write_weights(folder, list(shape.tensors()), dtype, shards, seed)
    return folder


def make_tokenizer(pre_tokenizer: PreTokenizer, vocabulary: int) -> Tokenizer:
    """Trains a byte-level BPE on the text above; a vocabulary larger than it can learn is filled up with made-up words.

    Args:
        pre_tokenizer: `llama-3` (adds BOS, takes whole words first), `qwen2` (composes accents), `gpt-2`, or `digits`
            (every digit alone, then as GPT-2).
        vocabulary: number of tokens, special ones included; at least 256 and a few.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre_tokenizer == "llama-3"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre_tokenizer in ("gpt-2", "digits"))
    split = {"llama-3": LLAMA_3, "qwen2": QWEN_2}.get(pre_tokenizer)
    if split:
        isolate = pre_tokenizers.Split(Regex(split), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([isolate, byte_level])
    elif pre_tokenizer == "digits":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    else:
        tokenizer.pre_tokenizer = byte_level
    if pre_tokenizer == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary - len(SPECIAL_TOKENS), 600),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    _fill_up(tokenizer, vocabulary - len(SPECIAL_TOKENS))
    added = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    tokenizer.add_special_tokens(added)  # pyright: ignore[reportUnknownMemberType]
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if pre_tokenizer == "llama-3":
        begin = (SPECIAL_TOKENS[0], tokenizer.token_to_id(SPECIAL_TOKENS[0]))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin[0]} $A", pair=f"{begin[0]} $A {begin[0]} $B:1", special_tokens=[begin]
        )
    return tokenizer


def _fill_up(tokenizer: Tokenizer, size: int) -> None:
    """Adds entries that no merge reaches, for vocabularies greater than the text can teach."""
    parsed = json.loads(tokenizer.to_str())["model"]
    entries: dict[str, int] = parsed["vocab"]
    missing = size - len(entries)
    if missing > 0:
        entries |= {f"Ġword{i:06}": len(entries) + i for i in range(missing)}
        merges = [tuple(pair) for pair in parsed["merges"]]
        tokenizer.model = models.BPE(entries, merges, ignore_merges=parsed["ignore_merges"])


def _write_weights(
    folder: Path, tensors: list[tuple[str, tuple[int, ...]]], dtype: str, shards: int, seed: int
) -> None:
    draw = np.random.RandomState(seed)  # its stream is frozen for good, unlike that of numpy's newer generators
    if shards == 1:
        _write_safetensors(folder / "model.safetensors", tensors, dtype, draw)
        return
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = tensors[shard * len(tensors) // shards : (shard + 1) * len(tensors) // shards]
        _write_safetensors(folder / name, part, dtype, draw)
        weight_map |= {tensor: name for tensor, _ in part}
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_safetensors(
    path: Path, tensors: list[tuple[str, tuple[int, ...]]], dtype: str, draw: np.random.RandomState
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors:
        end = offset + prod(shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded = encoded.ljust(-(-len(encoded) // 8) * 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in tensors:
            for part in _random_values(name, prod(shape), draw):
                file.write(part.astype(DTYPES[dtype]).tobytes())


def _random_values(name: str, count: int, draw: np.random.RandomState) -> Iterator[NDArray[np.float32]]:
    """Weights around 0, small enough that activations stay tame; norms around 1."""
    for first in range(0, count, PART):
        whole = draw.randint(0, 1 << 16, min(PART, count - first), dtype=np.uint16)
        uniform = whole.astype(np.float32) / np.float32(1 << 15) - np.float32(1)
        yield np.float32(1) + uniform * np.float32(0.1) if "norm" in name else uniform * np.float32(0.05)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
