"""What the server asks before it loads a model: where do its parts go on this machine, and with how much context?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from converter.errors import ConversionError
from converter.gguf_info import GGUFInfo, read_gguf_info
from server.engine.kernels.known import know_all, know_some
from server.engine.load_spec import Placement
from server.errors import BrimError
from server.offload.calibration import overhead, speeds_of
from server.offload.compute import header_digest
from server.offload.devices import discover
from server.offload.drafting import Draft
from server.offload.holding import HOST, Role, Share
from server.offload.projector import Projector
from server.offload.solving import solve
from server.offload.stepping_down import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    from server.engine.load_spec import LoadSpec
    from server.offload.companion import Companion, Guest
    from server.offload.questions import DeviceSpeed
    from server.offload.solving import Outcome
    from server.offload.wish import Wish


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement and what it was made for.

    Attributes:
        context: tokens of one request. pool: cells of the KV cache that all requests share; 0 is as many.
        shares: what each device will hold, and the host.
        tokens_per_second: predicted for one request alone.
        rpc: the RPC workers that answered, in the order that gives their devices their names; the worker needs these.
        digest: of the model's header. free: bytes that were free on each device; both for `learn`.
        host_free: bytes of the host's memory that all of it leaves; negative where weights do not stay in memory.
        guests: the companions in their homes.
        kernels: whether brim's own kernels know some of its weights.
        reorder: whether there are quantized ones that they do not, which llama.cpp may want in an order of its own.
    """

    placement: Placement
    context: int
    pool: int
    shares: tuple[Share, ...]
    tokens_per_second: float
    rpc: tuple[str, ...]
    digest: str
    free: dict[str, int]
    host_free: int
    guests: tuple[Guest, ...] = ()
    kernels: bool = False
    reorder: bool = True

    def guest(self, role: Role) -> Guest | None:
        """The companion of that role in its home, if there is one."""
        return next((guest for guest in self.guests if guest.role == role), None)


def companions_of(
    *, draft: str | PathLike[str] | None = None, projector: str | PathLike[str] | None = None
) -> tuple[Companion, ...]:
    """What loads beside a model, for a `Wish`.

    Args:
        draft: GGUF file of the model that proposes tokens. projector: GGUF file of the multimodal projector (mmproj).

    Raises:
        BrimError: a file cannot be read.
    """
    drafts = (Draft(read_model(draft)),) if draft else ()
    projectors = (Projector(read_model(projector)),) if projector else ()
    return drafts + projectors


def choose(
    path: str | PathLike[str], wish: Wish, *, rpc: tuple[str, ...] = (), devices: tuple[str, ...] | None = None
) -> Choice:
    """Decide where a model's parts go on this machine.

    Args:
        path: a GGUF file.
        wish: what is wanted; a context left open (0) becomes the largest that costs no speed.
        rpc: endpoints (HOST:PORT) of RPC workers whose devices may be used.
        devices: ggml device names to use; None takes all.

    Raises:
        BrimError: the file cannot be read, or a device in `devices` does not exist.
    """
    info = read_model(path)
    machine = discover(rpc, devices if wish.gpu_layers != 0 else ())
    anywhere = bool(machine.devices)  # with nowhere to go but the CPU, there is nothing to measure
    speeds = speeds_of(machine, measure=anywhere)
    outcome = solve(info, machine, wish, speeds, verify=anywhere)
    model = outcome.plan.problem.model
    dense = not any(layer.experts for layer in model.layers)
    return Choice(
        placement=_with_warnings(outcome.placement(), machine.warnings),
        context=outcome.wish.context,
        pool=outcome.wish.pool,
        shares=_shares(outcome, speeds),
        tokens_per_second=outcome.plan.tokens_per_second,
        rpc=machine.rpc,
        digest=header_digest(info),
        free={device.name: device.free for device in machine.devices},
        host_free=outcome.host_free,
        guests=outcome.guests,
        kernels=know_some(model.bytes_by_type.keys()),
        reorder=not know_all(model.bytes_by_type.keys(), dense=dense),
    )


def _shares(outcome: Outcome, speeds: Mapping[str, DeviceSpeed]) -> tuple[Share, ...]:
    """What the plan gives to every device, used or not, and to the host."""
    found = outcome.plan
    last = len(found.problem.model.layers)
    shares: list[Share] = []
    for device in outcome.machine.devices:
        stretch = next((stretch for stretch in found.stretches if stretch.device == device.name), None)
        layers = min(stretch.end, last) - stretch.start if stretch else 0
        planned = stretch.total if stretch else 0
        shares.append(Share(device.name, device.buffer, layers, planned, overhead(device, speeds[device.name])))
    host = found.host_weights + found.host_kv + outcome.host_compute
    shares.append(Share(HOST, HOST, last - found.layers_on_device, host))
    return tuple(shares) + tuple(share for guest in outcome.guests for share in _shares_of(guest, shares))


def _shares_of(guest: Guest, shares: Sequence[Share]) -> Iterator[Share]:
    """What the plan gives to a companion: on its device, whose own overhead counts once, and on the host."""
    home = next(share for share in shares if share.device == guest.home)
    if home.device != HOST:
        overhead = 0 if home.planned else home.overhead
        yield Share(home.device, home.buffer, guest.layers, guest.on_device.total, overhead, guest.role)
    layers = guest.layers if home.device == HOST else 0
    yield Share(HOST, HOST, layers, guest.on_host.total, part=guest.role)


def learn(choice: Choice, worked: LoadSpec) -> None:
    """Remember that `worked` is all that could be loaded where `choice` was planned; the next plan starts from it."""
    if worked.placement != choice.placement:
        record(choice.digest, choice.free, worked.placement)
    still_there = {"draft": worked.draft_placement.devices, "projector": worked.projector_device}
    for guest in choice.guests:
        if guest.device and not still_there[guest.role]:
            record(header_digest(guest.companion.info), choice.free, Placement())


def read_model(path: str | PathLike[str]) -> GGUFInfo:
    """The header of a model file. Raises BrimError where it cannot be read."""
    try:
        return read_gguf_info(path)
    except ConversionError as error:
        raise BrimError(str(error)) from error


def _with_warnings(placement: Placement, warnings: Iterable[str]) -> Placement:
    return structs.replace(placement, summary="; ".join([*warnings, placement.summary]))
