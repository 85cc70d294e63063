"""`brim plan`: where a model's layers would go, and how fast it would be, without loading it."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - Typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from server.errors import BrimError

if TYPE_CHECKING:
    from server.offload.devices import Device, Machine
    from server.offload.wish import GpuLayers

KV_TYPES = ("f16", "q8_0", "q4_0", "f32")


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name in the store, or the path of a .gguf file.")],
    ctx: Annotated[int, typer.Option(help="Context length; 0 takes the largest that costs no speed.", min=0)] = 0,
    parallel: Annotated[int, typer.Option(help="Requests decoded side by side.", min=1, max=256)] = 8,
    kv_type: Annotated[str, typer.Option(metavar="f16|q8_0|q4_0|f32", help="Type of the KV cache.")] = "f16",
    gpu_layers: Annotated[str, typer.Option(metavar="auto|all|N", help="Layers on the GPU.")] = "auto",
    vram_budget: Annotated[str | None, typer.Option(metavar="SIZE", help="GPU memory to use at most.")] = None,
    vram: Annotated[
        list[str] | None, typer.Option(metavar="SIZE", help="Plan for a GPU of this size; repeatable.")
    ] = None,
    gpu: Annotated[list[str] | None, typer.Option(metavar="NAME", help='Plan for an "RTX 4060"; repeatable.')] = None,
    all_gpus: Annotated[bool, typer.Option("--all-gpus", help="A table over all cards that brim knows.")] = False,
    draft: Annotated[str | None, typer.Option(metavar="MODEL", help="Small model that proposes tokens.")] = None,
    projector: Annotated[
        str | None, typer.Option("--projector", "--mmproj", metavar="FILE|none", help="Multimodal projector.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Use only this device; repeatable.")] = None,
    rpc: Annotated[str | None, typer.Option(metavar="HOST:PORT,...", help="Plan over RPC workers too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the plan into a file.")] = None,
) -> None:
    """Show where a model's layers would go, how fast it would be, and what would help."""
    from server.models.projector import NO_PROJECTOR
    from server.models.resolve import resolve
    from server.models.store import Store
    from server.offload.advice import compare
    from server.offload.calibration import speeds_of
    from server.offload.card_table import card_rows, card_table
    from server.offload.host import host_memory
    from server.offload.placing import companions_of, read_model
    from server.offload.report import as_dict, as_text
    from server.offload.solving import solve
    from server.offload.wish import Wish

    source = resolve(model, Store.default(), projector)
    info = read_model(source.path)
    draft_path = resolve(draft, Store.default(), NO_PROJECTOR).path if draft else source.draft
    companions = companions_of(draft=draft_path, projector=source.projector)
    wish = Wish(
        context=ctx,
        parallel=parallel,
        kv_type=_kv_type(kv_type),
        gpu_layers=_gpu_layers(gpu_layers),
        vram_budget=_size("--vram-budget", vram_budget),
        companions=companions,
    )
    console = Console()
    if all_gpus:
        rows = card_rows(info, wish, host_memory())
        if as_json:
            print(json.dumps([row.as_dict() for row in rows], indent=2))
        else:
            console.print(card_table(rows))
        return
    machine = _machine(vram or [], gpu or [], tuple(device) if device else None, rpc)
    outcome = solve(info, machine, wish, speeds_of(machine))
    comparison = compare(outcome)
    if as_json:
        print(json.dumps(as_dict(source.name, outcome, comparison), indent=2))
    else:
        console.print(as_text(source.name, outcome, comparison), highlight=False)
    if plot:
        from server.offload.plot import draw

        draw(source.name, outcome, plot)


def _machine(vram: list[str], gpu: list[str], only: tuple[str, ...] | None, rpc: str | None) -> Machine:
    """This machine, or this machine with the cards that the flags describe instead of its own."""
    from server.offload.catalogue import find_card
    from server.offload.devices import Machine, discover
    from server.offload.host import host_memory

    if not vram and not gpu:
        endpoints = tuple(part.strip() for part in rpc.split(",") if part.strip()) if rpc else ()
        return discover(endpoints, only)
    cards = [find_card(name).device(i) for i, name in enumerate(gpu)]
    cards += [_generic(text, len(gpu) + i) for i, text in enumerate(vram)]
    return Machine(host_memory(), tuple(cards))


def _generic(text: str, number: int) -> Device:
    from server.offload.catalogue import generic_card
    from server.sizes import format_size

    size = _size("--vram", text)
    if not size:
        raise BrimError("--vram must be more than nothing")
    return generic_card(f"GPU of {format_size(size)}", size, number)


def _size(option: str, text: str | None) -> int | None:
    from server.sizes import parse_size

    try:
        return parse_size(text) if text is not None else None
    except ValueError as error:
        raise BrimError(f"{option}: {error}") from error


def _kv_type(text: str) -> str:
    if text not in KV_TYPES:
        raise BrimError(f"--kv-type must be one of {', '.join(KV_TYPES)}, not '{text}'")
    return text


def _gpu_layers(text: str) -> GpuLayers:
    if text == "auto" or text == "all":
        return text
    if not text.isdecimal():
        raise BrimError(f"--gpu-layers must be auto, all or a number, not '{text}'")
    return int(text)
