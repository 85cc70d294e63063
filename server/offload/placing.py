"""What the server asks before it loads a model: where do its parts go on this machine, and with how much context?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from converter.errors import ConversionError
from converter.gguf_info import GGUFInfo, read_gguf_info
from server.errors import BrimError
from server.offload.calibration import speeds_of
from server.offload.compute import header_digest
from server.offload.devices import discover
from server.offload.solving import GpuLayers, Wish, solve
from server.offload.stepping_down import record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from server.engine.messages import Placement


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement and what it was made for.

    Attributes:
        context: tokens of one request. pool: cells of the KV cache that all requests share; 0 is as many.
        planned_bytes: what each device will hold.
        rpc: the RPC workers that answered, in the order that gives their devices their names; the worker needs these.
        digest: of the model's header. free: bytes that were free on each device; both for `learn`.
    """

    placement: Placement
    context: int
    pool: int
    planned_bytes: dict[str, int]
    rpc: tuple[str, ...]
    digest: str
    free: dict[str, int]


def place(
    path: str | PathLike[str],
    *,
    context: int,
    parallel: int,
    kv_type: str,
    gpu_layers: GpuLayers,
    vram_budget: int | None = None,
    rpc: tuple[str, ...] = (),
    devices: tuple[str, ...] | None = None,
    kv_unified: bool | None = None,
    held: int = 0,
) -> Placement:
    """Decide where a model's parts go on this machine.

    Args:
        path: a GGUF file.
        context: tokens of one request; 0 leaves it open (see `choose`).
        parallel: requests decoded side by side.
        kv_type: `f16`, `q8_0`, `q4_0` or `f32`.
        gpu_layers: a number of layers, `all`, or `auto` for the fastest placement that fits.
        vram_budget: bytes that brim may use of all devices together; None leaves only each device's own margin.
        rpc: endpoints (HOST:PORT) of RPC workers whose devices may be used.
        devices: ggml device names to use; None takes all.
        kv_unified: whether the engine keeps one pool of KV cells or a buffer for each sequence; None is one pool.
        held: bytes that brim's other models hold on the devices, which count against `vram_budget`.

    Returns:
        The placement; its `summary` says in one line what it is, and why.

    Raises:
        BrimError: the file cannot be read, or a device in `devices` does not exist.
    """
    wish = Wish(context, parallel, kv_type, gpu_layers, vram_budget, held, kv_unified)
    return choose(path, wish, rpc=rpc, devices=devices).placement


def choose(
    path: str | PathLike[str], wish: Wish, *, rpc: tuple[str, ...] = (), devices: tuple[str, ...] | None = None
) -> Choice:
    """Like `place`, and choose the context where the wish leaves it open (0): the largest that costs no speed.

    Raises:
        BrimError: the file cannot be read, or a device in `devices` does not exist.
    """
    info = read_model(path)
    machine = discover(rpc, devices if wish.gpu_layers != 0 else ())
    anywhere = bool(machine.devices)  # with nowhere to go but the CPU, there is nothing to measure
    outcome = solve(info, machine, wish, speeds_of(machine, measure=anywhere), verify=anywhere)
    placement = _with_warnings(outcome.placement(), machine.warnings)
    planned = {stretch.device: stretch.total for stretch in outcome.plan.stretches}
    free = {device.name: device.free for device in machine.devices}
    return Choice(placement, outcome.wish.context, outcome.wish.pool, planned, machine.rpc, header_digest(info), free)


def learn(choice: Choice, worked: Placement) -> None:
    """Remember that `worked` is all that could be loaded where `choice` was planned; the next plan starts from it."""
    record(choice.digest, choice.free, worked)


def read_model(path: str | PathLike[str]) -> GGUFInfo:
    """The header of a model file. Raises BrimError where it cannot be read."""
    try:
        return read_gguf_info(path)
    except ConversionError as error:
        raise BrimError(str(error)) from error


def _with_warnings(placement: Placement, warnings: Iterable[str]) -> Placement:
    return structs.replace(placement, summary="; ".join([*warnings, placement.summary]))
