"""Times a checkpoint's conversion, and what memory it peaks at; llama.cpp's own two steps beside it, in turns.

    python -m benchmarks.convert --shape qwen0.5b --quant Q4_K_M
    python -m benchmarks.convert --llama-cpp path/to/llama.cpp --peer-python venv/bin/python --llama-quantize path/to/it

The peer is convert_hf_to_gguf.py, which needs an environment with torch and transformers, then llama-quantize.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.models import SHAPES
from tests.reference.digest_gguf import RUN_CONVERTER
from tests.reference.random_checkpoint import make_checkpoint

Command = list[str]


def measure(commands: list[Command]) -> tuple[float, float]:
    """Runs commands one after the other: seconds in all, and the greatest peak of resident memory in MB.

    Raises:
        RuntimeError: one of them fails.
    """
    started, peak = time.perf_counter(), 0
    for command in commands:
        with Path(os.devnull).open("w") as silent:
            actions = [(os.POSIX_SPAWN_DUP2, silent.fileno(), 1), (os.POSIX_SPAWN_DUP2, silent.fileno(), 2)]
            process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
        peak = max(peak, usage.ru_maxrss)
    return time.perf_counter() - started, peak / (1 << 20 if sys.platform == "darwin" else 1000)


def main(
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "qwen0.5b",
    quant: Annotated[str, typer.Option(help="Quantization type.")] = "Q4_K_M",
    runs: Annotated[int, typer.Option(help="Runs of each, in turns.")] = 3,
    shards: Annotated[int, typer.Option(help="Safetensors files of the checkpoint.")] = 1,
    llama_cpp: Annotated[Path | None, typer.Option(help="llama.cpp's source tree.")] = None,
    peer_python: Annotated[Path, typer.Option(help="A Python with torch and transformers.")] = Path(sys.executable),
    llama_quantize: Annotated[Path | None, typer.Option(help="llama.cpp's llama-quantize.")] = None,
) -> None:
    """Print the median time and peak memory of each contender."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / shape, SHAPES[shape], shards=shards)
        out, plain = Path(folder) / "out.gguf", Path(folder) / "plain.gguf"
        arguments = [str(checkpoint), "--quant", quant, "--out", str(out)]
        contenders = {"brim convert": [[sys.executable, "-m", "converter.cli", "convert", *arguments]]}
        if llama_cpp and llama_quantize:
            options = [str(checkpoint), "--outtype", "bf16", "--outfile", str(plain)]
            contenders["llama.cpp"] = [
                [str(peer_python), "-c", RUN_CONVERTER, str(llama_cpp), "qwen2", *options],
                [str(llama_quantize), str(plain), str(out), quant],
            ]
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(runs):
            for name, commands in contenders.items():
                results[name].append(measure(commands))
    typer.echo(f"{shape} (BF16, {shards} files) to {quant}, median of {runs}")
    for name, measured in results.items():
        seconds, megabytes = (median(column) for column in zip(*measured, strict=True))
        typer.echo(f"{name:15} {seconds:7.1f} s {megabytes:7.0f} MB peak")


if __name__ == "__main__":
    typer.run(main)
