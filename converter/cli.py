"""The converter's commands: `brim convert`, `brim quantize` and `brim inspect`."""

from __future__ import annotations

import json
import signal
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from converter.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from converter.convert import Summary
    from converter.gguf_info import GGUFInfo

SHOWN_ITEMS = 6
"""How much of an array `brim inspect` prints."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Convert and inspect models.")

Quant = Annotated[str, typer.Option("--quant", "-q", help="Quantization type, such as Q4_K_M, Q8_0, F16.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show llama.cpp's log, and the traceback of an error.")]


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of a Hugging Face checkpoint.")],
    quant: Quant = "Q4_K_M",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; SOURCE-QUANT.gguf by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the folder's by default.")] = None,
    debug: Debug = False,
) -> None:
    """Convert a checkpoint to a GGUF file."""
    from converter.convert import convert as convert_checkpoint
    from converter.quantization import parse_quantization

    with reporting_errors(debug):
        target = out or Path(f"{source.resolve().name}-{parse_quantization(quant).name}.gguf")
        with progress_bar(f"{source.name} to {quant.upper()}") as progress:
            summary = convert_checkpoint(source, target, quant, name=name, progress=progress)
        print_summary(summary)


@app.command()
def quantize(
    source: Annotated[Path, typer.Argument(metavar="IN.gguf", help="File to read.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.gguf", help="File to write.")],
    quant: Quant = "Q4_K_M",
    allow_requantize: Annotated[bool, typer.Option(help="Quantize what is quantized already, at a loss.")] = False,
    debug: Debug = False,
) -> None:
    """Write a GGUF file anew with another quantization type."""
    from converter.convert import quantize as quantize_file

    with reporting_errors(debug):
        with progress_bar(f"{source.name} to {quant.upper()}") as progress:
            summary = quantize_file(source, out, quant, allow_requantize=allow_requantize, progress=progress)
        print_summary(summary)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show a GGUF file's metadata and tensors."""
    from converter.gguf_info import read_gguf_info

    with reporting_errors(debug):
        info = read_gguf_info(file)
    if as_json:
        typer.echo(json.dumps(describe(info), ensure_ascii=False, indent=2))
    else:
        print_info(info)


@contextmanager
def reporting_errors(debug: bool) -> Generator[None]:
    """Ends a conversion with one sentence on an error or an interruption; `debug` shows llama.cpp's log, too."""
    with ending_in_good_order(ConversionError, "Interrupted; nothing was written.", debug=debug):
        if debug:
            from converter import ggml

            ggml.show_log()
        yield


@contextmanager
def ending_in_good_order(foreseen: type[Exception], interrupted: str, *, debug: bool) -> Generator[None]:
    """Ends a command with one sentence on stderr and status 1 on an error, and with 130 when interrupted.

    SIGTERM ends it as Ctrl-C does, so that no half-written file stays behind.

    Args:
        foreseen: the errors whose text is for the user.
        interrupted: what to say of an interruption.
        debug: whether to show the traceback.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except foreseen as error:
        if debug:
            traceback.print_exc()
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(interrupted, err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress_bar(description: str) -> Generator[Callable[[int, int], None]]:
    """A bar with bytes, rate and time left, if stderr is a terminal; yields what to call with bytes done and in all."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_summary(summary: Summary) -> None:
    """One line on what was written, and one on each thing to know."""
    typer.echo(
        f"{summary.path}: {_bytes(summary.file_bytes)}, {summary.quantization.name}, {summary.parameters:,} weights at "
        f"{summary.bits_per_weight:.2f} bits."
    )
    if summary.fallbacks:
        typer.echo(
            f"{summary.fallbacks} of {summary.tensors} tensors have rows too short for the type's blocks and got "
            "another type."
        )
    for note in summary.notes:
        typer.echo(note)


def describe(info: GGUFInfo) -> dict[str, Any]:
    """A GGUF file as JSON: every metadata value, every tensor."""
    return {
        "path": str(info.path),
        "version": info.version,
        "file_bytes": info.file_bytes,
        "parameters": info.parameters,
        "bits_per_weight": round(info.bits_per_weight, 3),
        "metadata": {key: field.value for key, field in info.fields.items()},
        "tensors": [
            {"name": t.name, "type": t.type.name, "shape": list(t.shape), "offset": info.data_start + t.offset}
            for t in info.tensors
        ],
    }


def print_info(info: GGUFInfo) -> None:
    """A GGUF file for people: its metadata with long values cut, its tensors."""
    console = Console()
    metadata = Table("key", "type", "value", title=str(info.path))
    for key, field in info.fields.items():
        kind = (
            field.type.name.lower()
            if field.item_type is None
            else f"{field.item_type.name.lower()}[{len(field.value)}]"
        )
        metadata.add_row(key, kind, escape(_shorten(field.value)))
    tensors = Table("tensor", "type", "shape (rows, row length)", "bytes")
    for tensor in info.tensors:
        tensors.add_row(tensor.name, tensor.type.name, " × ".join(map(str, tensor.shape)), f"{tensor.nbytes:,}")
    console.print(metadata, tensors)
    console.print(
        f"{len(info.tensors)} tensors, {info.parameters:,} weights at {info.bits_per_weight:.2f} bits, "
        f"{_bytes(info.file_bytes)}",
        highlight=False,
    )


def _shorten(value: Any) -> str:
    if isinstance(value, list):
        items: list[Any] = value[:SHOWN_ITEMS]  # pyright: ignore[reportUnknownVariableType]
        return ", ".join(map(repr, items)) + (", …" if len(value) > SHOWN_ITEMS else "")  # pyright: ignore[reportUnknownArgumentType]
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


if __name__ == "__main__":
    app()
