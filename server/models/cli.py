"""The store's commands: `brim create`, `pull`, `list`, `show`, `cp` and `rm`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from converter.cli import ending_in_good_order
from server.errors import BrimError
from server.models.describe import as_modelfile_text, in_bytes, in_short, template_of
from server.models.manifest import DEFAULT_TAG, ModelName
from server.models.projector import read_projector, senses_of
from server.models.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from datetime import datetime

    from server.models.manifest import Manifest, Model
    from server.models.parameters import ParameterValue

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The models on this machine.")

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name, perhaps with a tag: name:tag.")]


@app.command()
def create(
    name: Name,
    file: Annotated[Path, typer.Option("--file", "-f", help="The Modelfile.")] = Path("Modelfile"),
    debug: Debug = False,
) -> None:
    """Create a model from a Modelfile."""
    with reporting_errors(debug):
        from server.models.create import create_from_file

        with progress_bar() as progress:
            manifest = create_from_file(Store.default(), name, file, progress=progress)
        _print_summary(manifest)


@app.command()
def pull(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="hf:OWNER/REPOSITORY, perhaps with :FILE or :QUANTIZATION.")
    ],
    quant: Annotated[
        str | None, typer.Option(metavar="TYPE", help="The quantization type, as after a colon in REF.")
    ] = None,
    projector: Annotated[
        bool, typer.Option("--projector/--no-projector", help="Take the multimodal projector that comes with it.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Fetch a model from the Hugging Face hub: a GGUF file, or a checkpoint, which is converted."""
    interrupted = "Interrupted; the store is as it was, and the next pull goes on from here."
    with ending_in_good_order(BrimError, interrupted, debug=debug):
        from server.models.pull import look_up
        from server.models.pull import pull as fetch

        with progress_bar() as progress:
            order = look_up(_quantized(reference, quant))
            manifest = fetch(Store.default(), order if projector else replace(order, projector=None), progress)
        _print_summary(manifest)


@app.command(name="list")
def list_models(debug: Debug = False) -> None:
    """List the models in the store."""
    with reporting_errors(debug):
        store = Store.default()
        models = store.list()
        if models:
            table = Table("NAME", "ARCHITECTURE", box=None, pad_edge=False)
            for column in ("PARAMETERS", "QUANTIZATION", "CONTEXT", "SIZE", "CREATED"):
                table.add_column(column, justify="right")
            for manifest in models:
                table.add_row(*_row(manifest))
            _console().print(table)
        else:
            typer.echo(
                "No models yet: `brim pull hf:OWNER/REPOSITORY` fetches one, `brim create NAME -f Modelfile` makes one."
            )
        for sentence in store.damaged():
            typer.echo(sentence, err=True)


@app.command()
def show(
    name: Name,
    modelfile: Annotated[
        bool, typer.Option("--modelfile", help="Print a Modelfile that makes the same model.")
    ] = False,
    template: Annotated[bool, typer.Option("--template", help="Print the chat template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Print the system prompt.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Print the parameters.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read the files again and compare their digests.")] = False,
    debug: Debug = False,
) -> None:
    """Show what the store knows of a model."""
    if modelfile + template + system + parameters + verify > 1:
        raise typer.BadParameter("give one of --modelfile, --template, --system, --parameters and --verify")
    with reporting_errors(debug):
        store = Store.default()
        manifest = store.get(name)
        if modelfile:
            typer.echo(as_modelfile_text(store, manifest), nl=False)
        elif template:
            chosen = template_of(store, manifest)
            if chosen is None:
                raise BrimError(f"{manifest.name} has no chat template, neither its own nor one from a Modelfile")
            typer.echo(chosen)
        elif system:
            typer.echo(manifest.system or "")
        elif parameters:
            for parameter, value in manifest.parameters.items():
                typer.echo(f"{parameter:<18} {_shown(value)}")
        elif verify:
            with progress_bar() as progress:
                store.verify(name, lambda done, total: progress("reading", done, total))
            typer.echo(f"{manifest.name}: every file is as it was stored.")
        else:
            _print_overview(store, manifest)


@app.command()
def cp(
    source: Annotated[str, typer.Argument(help="A model's name.")],
    target: Annotated[str, typer.Argument(help="The name it gets as well.")],
    debug: Debug = False,
) -> None:
    """Give a model a second name; its files are shared."""
    with reporting_errors(debug):
        Store.default().copy(source, target)


@app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models' names.")],
    debug: Debug = False,
) -> None:
    """Remove models, and the files that no other model shares."""
    with reporting_errors(debug):
        store = Store.default()
        for name in names:
            store.remove(name)


def reporting_errors(debug: bool) -> AbstractContextManager[None]:
    """End the command with one sentence on an error or an interruption."""
    return ending_in_good_order(BrimError, "Interrupted; the store is as it was.", debug=debug)


def _quantized(reference: str, quant: str | None) -> str:
    if quant is None:
        return reference
    if ModelName.parse(reference).tag != DEFAULT_TAG:
        raise BrimError(f"{reference} says already what to take; leave --quant out")
    return f"{reference}:{quant}"


def _print_summary(manifest: Manifest) -> None:
    details = manifest.details
    typer.echo(
        f"{manifest.name}: {details.architecture}, {in_short(details.parameters)} parameters, {details.quantization}, "
        f"{in_bytes(manifest.size)}."
    )


def _row(manifest: Manifest) -> tuple[str, ...]:
    details = manifest.details
    return (
        escape(manifest.name),
        escape(details.architecture),
        in_short(details.parameters),
        escape(details.quantization),
        f"{details.context_length:,}",
        in_bytes(manifest.size),
        _local(manifest.created),
    )


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _print_overview(store: Store, manifest: Manifest) -> None:
    details = manifest.details
    facts = {
        "name": manifest.name,
        "architecture": details.architecture,
        "parameters": f"{details.parameters:,}",
        "quantization": details.quantization,
        "context length": f"{details.context_length:,}",
        "size": in_bytes(manifest.size),
        "made from": manifest.source,
        "created": _local(manifest.created),
        "file": str(store.blob_path(manifest.digest)),
        "adapters": ", ".join(f"{a.digest[7:19]} at {a.scale:g}" for a in manifest.adapters),
        "draft model": manifest.draft.details.architecture if manifest.draft else "",
        "projector": _projector_in_short(store, manifest.projector) if manifest.projector else "",
        "template": "the Modelfile's" if manifest.template else "the model's own",
        "system": manifest.system or "",
        **{f"parameter {name}": _shown(value) for name, value in manifest.parameters.items()},
        **{f"message {number}": f"{m.role}: {m.text}" for number, m in enumerate(manifest.messages, 1)},
        "license": "; ".join(text.split("\n", 1)[0] for text in manifest.licenses),
    }
    width = max(map(len, facts)) + 2
    for fact, value in facts.items():
        if value:
            typer.echo(f"{fact:<{width}}{value}")


def _projector_in_short(store: Store, projector: Model) -> str:
    senses = senses_of(read_projector(store.blob_path(projector.digest)))
    return f"{senses}, {projector.details.quantization}, {in_bytes(projector.size)}"


def _shown(value: ParameterValue) -> str:
    return " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def _console() -> Console:
    """Standard output; where it is no terminal, no table is squeezed into one's width."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)


@contextmanager
def progress_bar() -> Generator[Callable[[str, int, int], None]]:
    """A bar on stderr with bytes, rate and time left; yields what to call with the stage, bytes done and in all."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("preparing", total=None)
        stage = ""

        def report(new_stage: str, done: int, total: int) -> None:
            nonlocal stage
            if new_stage != stage:
                stage = new_stage
                bar.reset(task, description=stage)
            bar.update(task, completed=done, total=total)

        yield report
