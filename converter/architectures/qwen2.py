"""Qwen2 and Qwen2.5: Llama's layers with biases on query, key and value, and the halves of a head rotated as stored."""

from __future__ import annotations

from converter.architectures.architecture import Architecture, TensorRule

LAYER = "model.layers.{layer}."

ARCHITECTURE = Architecture(
    name="qwen2",
    model_classes=("Qwen2ForCausalLM",),
    metadata=lambda _: {},
    tensors=(
        TensorRule("token_embd.weight", "model.embed_tokens.weight", ("vocabulary", "embedding")),
        TensorRule("blk.{layer}.attn_norm.weight", LAYER + "input_layernorm.weight", ("embedding",)),
        TensorRule("blk.{layer}.attn_q.weight", LAYER + "self_attn.q_proj.weight", ("query", "embedding")),
        TensorRule("blk.{layer}.attn_q.bias", LAYER + "self_attn.q_proj.bias", ("query",)),
        TensorRule("blk.{layer}.attn_k.weight", LAYER + "self_attn.k_proj.weight", ("key_value", "embedding")),
        TensorRule("blk.{layer}.attn_k.bias", LAYER + "self_attn.k_proj.bias", ("key_value",)),
        TensorRule("blk.{layer}.attn_v.weight", LAYER + "self_attn.v_proj.weight", ("key_value", "embedding")),
        TensorRule("blk.{layer}.attn_v.bias", LAYER + "self_attn.v_proj.bias", ("key_value",)),
        TensorRule("blk.{layer}.attn_output.weight", LAYER + "self_attn.o_proj.weight", ("embedding", "query")),
        TensorRule("blk.{layer}.ffn_norm.weight", LAYER + "post_attention_layernorm.weight", ("embedding",)),
        TensorRule("blk.{layer}.ffn_gate.weight", LAYER + "mlp.gate_proj.weight", ("feed_forward", "embedding")),
        TensorRule("blk.{layer}.ffn_up.weight", LAYER + "mlp.up_proj.weight", ("feed_forward", "embedding")),
        TensorRule("blk.{layer}.ffn_down.weight", LAYER + "mlp.down_proj.weight", ("embedding", "feed_forward")),
        TensorRule("output_norm.weight", "model.norm.weight", ("embedding",)),
        TensorRule("output.weight", "lm_head.weight", ("vocabulary", "embedding"), optional=True),
    ),
)
