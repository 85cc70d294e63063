"""Llama and Mistral: pre-norm transformer, SwiGLU, rotary positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converter.architectures.architecture import Architecture, Hyperparameters, TensorRule
from converter.gguf_format import Field, Fields
from converter.tensor_data import MemoryTensor

if TYPE_CHECKING:
    from converter.tensor_data import TensorData

LAYER = "model.layers.{layer}."


def metadata(hyperparameters: Hyperparameters) -> Fields:
    """The fields that only Llama has."""
    return {
        "vocab_size": Field.u32(hyperparameters.vocabulary),
        "rope.dimension_count": Field.u32(hyperparameters.head),
    }


def rope_factors(hyperparameters: Hyperparameters) -> dict[str, TensorData]:
    """Llama 3.1's rope scaling, as one divisor per frequency.

    Frequencies whose wavelength is short against the context of training stay, long ones are divided by the factor,
    those between are interpolated (Llama 3.1's reference implementation, `apply_scaling`).
    """
    scaling = hyperparameters.rope_scaling
    if scaling is None or scaling.type != "llama3":
        return {}
    factor = scaling.number("factor", 8.0)
    low = scaling.number("low_freq_factor", 1.0)
    high = scaling.number("high_freq_factor", 4.0)
    context = scaling.number("original_max_position_embeddings", 8192)

    exponents = np.arange(0, hyperparameters.head, 2, dtype=np.float32) / np.float32(hyperparameters.head)
    frequencies = np.float32(1.0) / np.float32(hyperparameters.rope_base) ** exponents
    wavelengths = np.float32(2 * math.pi) / frequencies
    smooth = (context / wavelengths - low) / (high - low)
    between = 1.0 / ((1.0 - smooth) / factor + smooth)
    factors = np.where(wavelengths < context / high, 1.0, np.where(wavelengths > context / low, factor, between))
    return {"rope_freqs.weight": MemoryTensor(factors.astype(np.float32))}


ARCHITECTURE = Architecture(
    name="llama",
    model_classes=("LlamaForCausalLM", "MistralForCausalLM"),
    metadata=metadata,
    generated=rope_factors,
    tensors=(
        TensorRule("token_embd.weight", "model.embed_tokens.weight", ("vocabulary", "embedding")),
        TensorRule("blk.{layer}.attn_norm.weight", LAYER + "input_layernorm.weight", ("embedding",)),
        TensorRule("blk.{layer}.attn_q.weight", LAYER + "self_attn.q_proj.weight", ("query", "embedding"), rope=True),
        TensorRule("blk.{layer}.attn_q.bias", LAYER + "self_attn.q_proj.bias", ("query",), rope=True, optional=True),
        TensorRule(
            "blk.{layer}.attn_k.weight", LAYER + "self_attn.k_proj.weight", ("key_value", "embedding"), rope=True
        ),
        TensorRule(
            "blk.{layer}.attn_k.bias", LAYER + "self_attn.k_proj.bias", ("key_value",), rope=True, optional=True
        ),
        TensorRule("blk.{layer}.attn_v.weight", LAYER + "self_attn.v_proj.weight", ("key_value", "embedding")),
        TensorRule("blk.{layer}.attn_v.bias", LAYER + "self_attn.v_proj.bias", ("key_value",), optional=True),
        TensorRule("blk.{layer}.attn_output.weight", LAYER + "self_attn.o_proj.weight", ("embedding", "query")),
        TensorRule("blk.{layer}.attn_output.bias", LAYER + "self_attn.o_proj.bias", ("embedding",), optional=True),
        TensorRule("blk.{layer}.ffn_norm.weight", LAYER + "post_attention_layernorm.weight", ("embedding",)),
        TensorRule("blk.{layer}.ffn_gate.weight", LAYER + "mlp.gate_proj.weight", ("feed_forward", "embedding")),
        TensorRule("blk.{layer}.ffn_gate.bias", LAYER + "mlp.gate_proj.bias", ("feed_forward",), optional=True),
        TensorRule("blk.{layer}.ffn_up.weight", LAYER + "mlp.up_proj.weight", ("feed_forward", "embedding")),
        TensorRule("blk.{layer}.ffn_up.bias", LAYER + "mlp.up_proj.bias", ("feed_forward",), optional=True),
        TensorRule("blk.{layer}.ffn_down.weight", LAYER + "mlp.down_proj.weight", ("embedding", "feed_forward")),
        TensorRule("blk.{layer}.ffn_down.bias", LAYER + "mlp.down_proj.bias", ("embedding",), optional=True),
        TensorRule("output_norm.weight", "model.norm.weight", ("embedding",)),
        TensorRule("output.weight", "lm_head.weight", ("vocabulary", "embedding"), optional=True),
    ),
)
