"""Digests of GGUF files that llama.cpp's own converter wrote, for tests to hold ours against without PyTorch.

A digest holds each tensor's shape, type and SHA-256, and each `tokenizer.*` and architecture field, long ones hashed.
`reference_digests.json` is made from a source tree of llama.cpp, in an environment that has torch and transformers:

    python -m tests.reference.digest_gguf path/to/llama.cpp path/to/stories260k

The tiny checkpoints of CASES are made anew by each test run from their seeds; stories260k is not part of the project.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf

from tests.reference.random_checkpoint import CHAT_TEMPLATE, PreTokenizer, Shape, make_checkpoint

DIGESTS = Path(__file__).with_name("reference_digests.json")
LONGEST_VALUE = 80
"""Characters of a field's value, as JSON, beyond which its hash stands in."""


@dataclass(frozen=True)
class Case:
    """A checkpoint to convert: its shape, how it is stored, and how its tokenizer splits text."""

    shape: Shape
    dtype: str
    shards: int = 1
    pre_tokenizer: PreTokenizer = "qwen2"
    llama_cpp_pre: str = "qwen2"
    chat_template: Any = field(default=CHAT_TEMPLATE)

    def make(self, folder: Path) -> Path:
        return make_checkpoint(
            folder,
            self.shape,
            dtype=self.dtype,
            shards=self.shards,
            pre_tokenizer=self.pre_tokenizer,
            chat_template=self.chat_template,
        )


LLAMA_3_ROPE = {
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
YARN = {
    "attention_bias": True,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0},
}
MISTRAL = {"sliding_window": 64, "rope_scaling": {"type": "linear", "factor": 2.0}}
NAMED_TEMPLATES = [{"name": "default", "template": CHAT_TEMPLATE}, {"name": "tool use", "template": "{{ messages }}"}]

CASES = {
    "llama-3": Case(Shape(config=LLAMA_3_ROPE), "BF16", 3, "llama-3", "llama-bpe"),
    "llama-tied-yarn": Case(Shape(tied=True, biases=True, config=YARN), "F16"),
    "mistral": Case(
        Shape(model_class="MistralForCausalLM", head=24, config=MISTRAL), "F32", 1, "gpt-2", "gpt-2", NAMED_TEMPLATES
    ),
    "qwen2": Case(Shape(model_class="Qwen2ForCausalLM", biases=True, vocabulary=1024), "BF16", 2),
    "digits": Case(Shape(embedding=48, head=12, feed_forward=80), "BF16", 1, "digits", "smollm", None),
}
TYPES = ("f32", "f16", "bf16", "q8_0")


def digest(path: Path) -> dict[str, Any]:
    """The digest of a GGUF file, read by the gguf package."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    return {
        "fields": {
            name: _brief(entry.contents())
            for name, entry in reader.fields.items()
            if name.startswith(("tokenizer.", f"{architecture}.", "general.architecture", "general.file_type"))
        },
        "tensors": {
            tensor.name: [
                tensor.tensor_type.name,
                [int(size) for size in reversed(tensor.shape)],
                hashlib.sha256(tensor.data.tobytes()).hexdigest(),
            ]
            for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name)
        },
    }


def _brief(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= LONGEST_VALUE else "sha256:" + hashlib.sha256(text.encode()).hexdigest()


RUN_CONVERTER = """
import sys
source, name = sys.argv.pop(1), sys.argv.pop(1)
sys.path.insert(0, source)
import convert_hf_to_gguf
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: name
convert_hf_to_gguf.main()
"""
"""Runs llama.cpp's converter; it knows only published vocabularies, so our tokenizers' pre-tokenizer is told to it."""


def _convert(llama_cpp: Path, checkpoint: Path, pre: str, out_type: str, out: Path) -> dict[str, Any]:
    options = [str(checkpoint), "--outtype", out_type, "--outfile", str(out)]
    subprocess.run([sys.executable, "-c", RUN_CONVERTER, str(llama_cpp), pre, *options], check=True)
    return digest(out)


def main(llama_cpp: Path, stories: Path) -> None:
    """Writes reference_digests.json."""
    digests: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "reference.gguf"
        checkpoints = {name: (case.make(Path(folder) / name), case.llama_cpp_pre) for name, case in CASES.items()}
        for name, (checkpoint, pre) in (checkpoints | {"stories260k": (stories, "default")}).items():
            digests[name] = {out_type: _convert(llama_cpp, checkpoint, pre, out_type, out) for out_type in TYPES}
    DIGESTS.write_text(json.dumps(digests, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
