"""`brim ps` and `brim stop`: what a running server is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from server.sizes import format_size

if TYPE_CHECKING:
    from server.settings import Settings

Host = Annotated[str | None, typer.Option(help="Address of the server.")]
Port = Annotated[int | None, typer.Option(help="Port of the server.")]
ApiKey = Annotated[str | None, typer.Option(help="Key to send; BRIM_API_KEY by default.")]


def ps(host: Host = None, port: Port = None, api_key: ApiKey = None) -> None:
    """List the models that a running server has loaded."""
    models = _ask(_settings(host, port, api_key), "GET", "/admin/models")["models"]
    if not models:
        typer.echo("No model is loaded.")
        return
    table = Table("NAME", "STATE", "PLACEMENT", box=None, pad_edge=False)
    for heading in ("CONTEXT", "SIZE", "REQUESTS", "UP", "UNTIL"):
        table.add_column(heading, justify="right")
    for model in models:
        table.add_row(
            model["name"],
            model["state"] if model["state"] == "ready" else f"{model['state']} {model['progress']:.0%}",
            model["placement"],
            f"{model['context']:,}",
            format_size(model["n_bytes"]),
            str(model["running"]),
            _duration(model["uptime"]),
            "stays" if model["until"] is None else f"in {_duration(model['until'])}",
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    if any(model["devices"] for model in models):
        console.print("", _holdings(models))


def _holdings(models: list[dict[str, Any]]) -> Table:
    """What each model was planned to hold on each device, and what it does hold."""
    table = Table("NAME", "PART", "DEVICE", box=None, pad_edge=False)
    for heading in ("LAYERS", "PLANNED", "ALLOCATED"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for model in models:
        for device in model["devices"]:
            planned, allocated = device["planned_bytes"], device["allocated_bytes"]
            off = f"{(allocated - planned) / max(planned, 1):+.1%} of the plan" if device["deviates"] else ""
            table.add_row(
                model["name"],
                device["part"],
                device["name"],
                "" if device["layers"] is None else str(device["layers"]),
                format_size(planned) if planned is not None else "not as planned",
                format_size(allocated),
                f"warning: {off}" if off else "",
            )
    return table


def stop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A loaded model's name.")],
    grace: Annotated[float, typer.Option(metavar="SECONDS", help="Time for its running requests to end.")] = 30.0,
    host: Host = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """End a model of a running server, and free its memory."""
    _ask(_settings(host, port, api_key), "POST", "/admin/unload", {"model": name, "grace": grace}, timeout=grace + 15)


def _ask(settings: Settings, method: str, path: str, body: Any = None, timeout: float = 10) -> Any:
    import asyncio

    from server.commands.client import ask, connect

    async def asking() -> Any:
        async with connect(settings) as client:
            return await ask(client, method, path, body, timeout)

    return asyncio.run(asking())


def _settings(host: str | None, port: int | None, api_key: str | None) -> Settings:
    from server.settings import Settings

    return Settings.load(host=host, port=port, api_key=api_key, no_key=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
