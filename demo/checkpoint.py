"""Writing and reading a checkpoint folder in Hugging Face layout."""

# pyright: basic, reportMissingImports=false
import json
import os
import shutil
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from demo import tokenizer as tokenization
from demo.model import Llama, Shape


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the whole checkpoint folder anew, in place of the one that is there.

    Args:
        model: The model; its weights are stored in bfloat16.
        tokenizer: Its tokenizer.
        folder: Where the checkpoint goes.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    weights = {
        f"model.{name}": tensor.detach().to(torch.bfloat16).contiguous().cpu()
        for name, tensor in model.state_dict().items()
    }
    save_file(weights, fresh / "model.safetensors", metadata={"format": "pt"})
    (fresh / "model.safetensors").chmod(0o644)  # safetensors makes it readable for its owner alone
    tokenization.save(tokenizer, fresh)
    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]]
    _write_json(fresh / "config.json", _config(model.shape, ends))
    generation = {"do_sample": False, "eos_token_id": ends, "pad_token_id": ends[1]}
    _write_json(fresh / "generation_config.json", generation)
    # Files are moved one by one: a folder cannot be replaced by another in one step.
    folder.mkdir(exist_ok=True)
    for file in fresh.iterdir():
        os.replace(file, folder / file.name)
    fresh.rmdir()


def load(folder: Path) -> tuple[Llama, Tokenizer]:
    """Read a checkpoint folder that `save` wrote; the weights come back in float32."""
    config = cast("dict[str, int]", json.loads((folder / "config.json").read_text(encoding="utf-8")))
    shape = Shape(
        hidden=config["hidden_size"], layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"], feed_forward=config["intermediate_size"],
        vocabulary=config["vocab_size"], context=config["max_position_embeddings"],
    )  # fmt: skip
    model = Llama(shape)
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in weights.items()})
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def _config(shape: Shape, ends: list[int]) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": ends[0],
        "pad_token_id": ends[1],
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": shape.epsilon,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
