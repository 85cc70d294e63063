"""The console script `brim`: all commands, and how their errors reach the user."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from converter.cli import app as converter_commands
from converter.errors import ConversionError
from server import __version__, logs
from server.commands.remote import ps, stop
from server.commands.run import run
from server.commands.serve import serve
from server.errors import BrimError
from server.models.cli import app as store_commands
from server.offload.cli import app as planner_commands

INTERRUPTED = 130

app = typer.Typer(
    name="brim",
    help="Fill the GPU to the brim with a model's layers, and run the rest on the CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(serve)
app.command()(run)
app.command()(ps)
app.command()(stop)
app.add_typer(store_commands)
app.add_typer(converter_commands)
app.add_typer(planner_commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"brim {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before any command."""
    if debug:
        logs.enable_debugging()


def main() -> None:
    """Run a command. Ends with status 0 when done, 1 with one line on stderr when it failed, 2 when it was misused."""
    try:
        app()
    except (BrimError, ConversionError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error} (a fault in brim; --debug shows where)")


def _fail(message: str) -> None:
    if logs.debugging():
        traceback.print_exc()
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
