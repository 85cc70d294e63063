"""Makes GGUF files with random weights of well-known shapes, for benchmarks that need a size and not a sense.

python -m benchmarks.models 160m model.gguf --quant Q8_0
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from converter import convert
from converter.cli import print_summary, progress_bar
from tests.reference.random_checkpoint import Shape, make_checkpoint

SHAPES = {
    "160m": Shape(
        layers=12,
        embedding=768,
        feed_forward=3072,
        heads=12,
        key_value_heads=12,
        head=64,
        vocabulary=32_000,
        context=8192,
    ),
    "qwen0.5b": Shape(
        layers=24,
        embedding=896,
        feed_forward=4864,
        heads=14,
        key_value_heads=2,
        head=64,
        vocabulary=151_936,
        context=32_768,
        tied=True,
        biases=True,
        model_class="Qwen2ForCausalLM",
        config={"rope_theta": 1_000_000.0, "rms_norm_eps": 1e-6},
    ),
    "llama1b": Shape(
        layers=16,
        embedding=2048,
        feed_forward=8192,
        heads=32,
        key_value_heads=8,
        head=64,
        vocabulary=128_256,
        context=131_072,
        tied=True,
        config={"rope_theta": 500_000.0},
    ),
}
"""Llama of 160 million weights, Qwen2.5-0.5B, Llama-3.2-1B."""


def main(
    shape: Annotated[str, typer.Argument(help=f"One of {', '.join(SHAPES)}.")],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.")],
    quant: Annotated[str, typer.Option(help="Quantization type.")] = "Q8_0",
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
) -> None:
    """Write a GGUF file with random weights."""
    if shape not in SHAPES:
        raise typer.BadParameter(f"{shape!r} is none of {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory(dir=out.resolve().parent) as folder:
        checkpoint = make_checkpoint(Path(folder) / shape, SHAPES[shape], seed=seed)
        with progress_bar(f"{shape} to {quant}") as progress:
            summary = convert(checkpoint, out, quant, progress=progress)
    print_summary(summary)


if __name__ == "__main__":
    typer.run(main)
