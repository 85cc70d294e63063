"""From a model, a machine and a wish to a plan: budgets from free memory, compute buffers from dry runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from msgspec import structs

from server.offload.calibration import overhead
from server.offload.compute import dry_run, estimate, header_digest, kv_bytes
from server.offload.encoding import encode, overrides
from server.offload.footprint import Footprint, KvShape, footprint
from server.offload.planner import Budget, Plan, Problem, plan
from server.offload.questions import DeviceSpeed, DryRun, DryRunResult
from server.offload.speed import Speed, depth_for, speed_for
from server.offload.stepping_down import lesson

if TYPE_CHECKING:
    from converter.gguf_info import GGUFInfo
    from server.engine.load_spec import Placement
    from server.offload.companion import Guest
    from server.offload.devices import Device, Machine
    from server.offload.holding import Role
    from server.offload.wish import Wish

SAFETY_MARGIN = 0.02
"""Share of a device's memory left free: small, since the figures are exact."""
N_BATCH = 2048
ROUNDS = 3
"""How often a plan is made anew because its dry run needed larger buffers than were assumed."""
SMALLEST_CONTEXT = 4096
HOST_SHARE_FOR_POOL = 0.25
"""Of the host's memory beside the weights: what KV cells may take that not even the longest request needs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan with all that it was made from.

    Attributes:
        budgets: bytes that each device gives to weights, KV and compute buffers of the model and its companions.
        host_compute: bytes of compute buffers on the host.
        exact: whether the compute buffers come from a dry run of this very placement.
        guests: the companions in their homes.
        drafted_seconds: predicted for one token where a draft guesses as usual; None without one.
    """

    wish: Wish
    machine: Machine
    plan: Plan
    budgets: dict[str, int]
    n_ubatch: int
    host_compute: int
    exact: bool
    guests: tuple[Guest, ...] = ()
    drafted_seconds: float | None = None

    def placement(self) -> Placement:
        """The same in the worker's terms."""
        placement = encode(self.plan, n_batch=N_BATCH, n_ubatch=self.n_ubatch, why_none=self.machine.note)
        return structs.replace(placement, summary="; ".join([placement.summary, *(g.summary for g in self.guests)]))

    @property
    def host_fixed(self) -> int:
        """Bytes of the host's memory that must be there: all but weights, which are pages of a file."""
        beside = sum(guest.on_host.kv + guest.on_host.compute for guest in self.guests)
        return self.plan.host_kv + self.host_compute + beside

    @property
    def host_free(self) -> int:
        """Bytes of the host's memory that all of it leaves; negative where weights do not stay in memory."""
        weights = self.plan.host_weights + sum(guest.on_host.weights for guest in self.guests)
        return self.host_room - weights - self.host_fixed

    @property
    def host_room(self) -> int:
        """Bytes of the host's memory beside what is on devices that share it."""
        taken = sum(stretch.total for stretch in self.plan.stretches if stretch.device in self.machine.sharing)
        return self.machine.host.available - taken - sum(map(self.guests_on, self.machine.sharing))

    def guests_on(self, device: str) -> int:
        """Bytes that companions take of a device."""
        return sum(guest.on_device.total for guest in self.guests if guest.home == device)


def solve(
    info: GGUFInfo, machine: Machine, wish: Wish, speeds: dict[str, DeviceSpeed], *, verify: bool = True
) -> Outcome:
    """The fastest placement of a model on a machine; where the context is open, the largest that costs no speed.

    Args:
        speeds: of the host ("CPU") and of every device, by name.
        verify: whether to dry-run the placement itself, and not only the model wholly on the devices.
    """
    model = footprint(info)
    if not wish.context:
        wish = replace(wish, context=_open_context(info, model, machine, wish, speeds))
    if not wish.pool:
        wish = replace(wish, pool=_open_pool(info, model, machine, wish, speeds))
    solver = Solver(info, model, machine, wish, speeds)
    solver = solver.with_kv_of(solver.dry_run_of_whole(wish.ubatches[0])).with_guests(exact=bool(machine.devices))
    outcomes: list[Outcome] = []
    for n_ubatch in wish.ubatches:
        outcomes.append(solver.solve(n_ubatch, ROUNDS if verify else 0))
        if outcomes[-1].plan.whole or not machine.devices:
            break
    return min(outcomes, key=lambda outcome: outcome.plan.seconds)


def _open_context(
    info: GGUFInfo, model: Footprint, machine: Machine, wish: Wish, speeds: dict[str, DeviceSpeed]
) -> int:
    """The largest context, by halves of the model's own, whose predicted speed is that of the smallest.

    Compute buffers are estimated here, so that choosing costs no dry runs. Host memory bounds it too.
    """
    contexts = [model.context_train]
    while contexts[-1] > SMALLEST_CONTEXT:
        contexts.append(max(SMALLEST_CONTEXT, contexts[-1] // 2))
    chosen, least = contexts[-1], float("inf")
    for context in reversed(contexts):
        solver = Solver(info, model, machine, replace(wish, context=context), speeds, depth=depth_for(contexts[-1]))
        solver = solver.with_guests(exact=False)
        found = solver.sketch
        seconds = solver.seconds(found)
        room = solver.host_left(found) - found.host_kv
        if seconds > least or (least < float("inf") and room < 0):
            break
        chosen, least = context, seconds
    return chosen


def _open_pool(info: GGUFInfo, model: Footprint, machine: Machine, wish: Wish, speeds: dict[str, DeviceSpeed]) -> int:
    """The largest pool of KV cells, up to one in which all parallel requests have room, that costs no speed.

    On the host it may take a quarter of the memory that the weights leave. 0 where a request's context is all there
    is room for.
    """
    least = None
    chosen = 0
    share = 1
    solver = Solver(info, model, machine, wish, speeds).with_guests(exact=False)
    while share <= wish.parallel and wish.kv_unified is not False:
        solver = replace(solver, wish=replace(wish, pool=wish.context * share))
        found = solver.sketch
        least = found.seconds if least is None else least
        room = solver.host_left(found) * HOST_SHARE_FOR_POOL
        if share > 1 and (found.seconds > least or found.host_kv > room):
            break
        chosen = wish.context * share if share > 1 else 0
        share = wish.parallel if share < wish.parallel < 2 * share else 2 * share
    return chosen


@dataclass(frozen=True)
class Buffers:
    """Compute buffers assumed for a device that holds layers only, for one that holds the output, and for the host."""

    layers: int
    output: int
    host: int

    def raised(self, found: Plan, told: DryRunResult) -> Buffers:
        """At least as large as a dry run of `found` told."""
        n = found.problem.n_items
        inner = [size for stretch, size in zip(found.stretches, told.compute, strict=True) if stretch.end < n]
        last = [size for stretch, size in zip(found.stretches, told.compute, strict=True) if stretch.end == n]
        return Buffers(max([self.layers, *inner]), max([self.output, *last]), told.host_compute)


@dataclass(frozen=True)
class Solver:
    """Plans one model on one machine, beside the companions that are its `guests`."""

    info: GGUFInfo
    model: Footprint
    machine: Machine
    wish: Wish
    speeds: dict[str, DeviceSpeed]
    depth: int | None = None
    guests: tuple[Guest, ...] = ()
    kv_scale: float = 1.0

    def with_guests(self, *, exact: bool) -> Solver:
        """The same with each companion where it makes the whole fastest, of all homes in which it fits.

        Where the user asked for a number of layers, these come first.

        Args:
            exact: whether the companions' compute buffers are dry-run or guessed.
        """
        companions = self.wish.companions
        if not companions:
            return self
        homes = [
            [companion.at(home, self.wish, self.machine, exact=exact) for home in companion.homes(self.machine)]
            for companion in companions
        ]
        settled = [replace(self, guests=guests) for guests in product(*homes)]
        fitting = [solver for solver in settled if min(solver.rooms.values(), default=0) >= 0]
        return min(fitting, key=lambda solver: solver.preference)

    @property
    def preference(self) -> tuple[int, float]:
        """By what guests' homes are chosen: layers missing of those asked for, then seconds for a token."""
        found = self.sketch
        return (0 if self.wish.gpu_layers == "auto" else -found.n_gpu_layers, self.seconds(found))

    @cached_property
    def sketch(self) -> Plan:
        """A plan with guessed compute buffers, which costs no dry run."""
        n_ubatch = self.wish.ubatches[0]
        return plan(self.problem(self.estimated(n_ubatch), n_ubatch))

    def seconds(self, found: Plan, *roles: Role) -> float:
        """What a token takes with the companions of these roles; without any, of all."""
        seconds = found.seconds
        for guest in self.guests:
            if not roles or guest.role in roles:
                seconds = guest.companion.seconds(seconds, guest.home, self.wish, self.speeds)
        return seconds

    def host_left(self, found: Plan) -> int:
        """Bytes of the host's memory beside weights, companions, and what is on devices that share it."""
        sharing = self.machine.sharing
        there = sum(stretch.total for stretch in found.stretches if stretch.device in sharing)
        there += sum(guest.on_device.total for guest in self.guests if guest.home in sharing)
        beside = sum(guest.on_host.total for guest in self.guests)
        return self.machine.host.available - there - beside - found.host_weights

    @cached_property
    def digest(self) -> str:
        """Of the model's header."""
        return header_digest(self.info)

    @cached_property
    def budgets(self) -> dict[str, int]:
        """Bytes that each device gives to the model and its companions."""
        return {device.name: self._budget(device) for device in self.machine.devices}

    @property
    def rooms(self) -> dict[str, int]:
        """Bytes that each device has for the model; negative where the guests do not fit."""
        taken = dict.fromkeys(self.budgets, 0)
        for guest in self.guests:
            if guest.home in taken:
                taken[guest.home] += guest.on_device.total
        return {name: budget - taken[name] for name, budget in self.budgets.items()}

    def _budget(self, device: Device) -> int:
        budget = self.free[device.name] - int(SAFETY_MARGIN * device.total)
        if self.wish.vram_budget is not None:
            free = sum(self.free.values())
            share = self.free[device.name] / free if free else 0.0
            held = sum(self.wish.held.get(other.buffer, 0) for other in self.machine.devices)
            budget = min(budget, int(share * (self.wish.vram_budget - held)))
        return max(0, budget - overhead(device, self.speeds[device.name]))

    def speed(self, name: str) -> Speed:
        """How fast a device computes this model."""
        return speed_for(self.model, self.speeds[name])

    def shape(self, n_ubatch: int) -> KvShape:
        """The model's KV cache."""
        return replace(self.wish.shape(self.model, n_ubatch), scale=self.kv_scale)

    def with_kv_of(self, told: DryRunResult | None) -> Solver:
        """The same with the KV cache as large as a dry run told, where the header's figures come to something else."""
        counted = self.model.kv_bytes(self.shape(self.wish.ubatches[0]))
        return replace(self, kv_scale=kv_bytes(counted, told) / counted) if counted else self

    def problem(self, buffers: Buffers, n_ubatch: int) -> Problem:
        """The planner's question, with compute buffers of these sizes."""
        devices = tuple(
            Budget(name, capacity, self.speed(name), buffers.layers, buffers.output)
            for name, capacity in self.rooms.items()
        )
        n_items = len(self.model.layers) + 1
        layers = self.wish.gpu_layers
        first = None if layers == "auto" else 0 if layers == "all" else max(0, n_items - layers)
        real = bool(devices) and not any(device.hypothetical for device in self.machine.devices)
        cap = lesson(self.digest, self.free) if layers == "auto" and real else None
        return Problem(
            self.model,
            self.speed("CPU"),
            devices,
            self.shape(n_ubatch),
            depth_for(self.wish.context) if self.depth is None else self.depth,
            first,
            0 if cap is None else max(0, n_items - cap),
        )

    @property
    def free(self) -> dict[str, int]:
        """Bytes free on each device. Not every backend's figure counts what is held there: the CPU's is always all."""
        held = self.wish.held
        return {d.name: max(0, min(d.free, d.total - held.get(d.buffer, 0))) for d in self.machine.devices}

    def solve(self, n_ubatch: int, rounds: int = ROUNDS) -> Outcome:
        """Plan with the buffers of a model wholly on the devices; plan again where the plan's own are larger."""
        buffers = self.buffers_of_whole(n_ubatch)
        found = plan(self.problem(buffers, n_ubatch))
        exact = False
        for _ in range(rounds):
            told = self.dry_run(found, n_ubatch)
            if told is None:
                break
            buffers = buffers.raised(found, told)
            if all(size <= stretch.compute for stretch, size in zip(found.stretches, told.compute, strict=True)):
                found, exact = found.with_compute(told.compute), True
                break
            found = plan(self.problem(buffers, n_ubatch))
        drafted = self.seconds(found, "draft") if any(guest.role == "draft" for guest in self.guests) else None
        return Outcome(
            self.wish, self.machine, found, self.budgets, n_ubatch, buffers.host, exact, self.guests, drafted
        )

    def estimated(self, n_ubatch: int) -> Buffers:
        """Buffers guessed from the model's dimensions."""
        told = estimate(self.model, self.shape(n_ubatch), 2, n_ubatch)
        return Buffers(told.compute[0], told.compute[1], told.host_compute)

    def buffers_of_whole(self, n_ubatch: int) -> Buffers:
        """Buffers of the model wholly on the devices, in even shares."""
        told = self.dry_run_of_whole(n_ubatch)
        if told is None:
            return self.estimated(n_ubatch)
        return Buffers(max(told.compute[:-1], default=told.compute[-1]), max(told.compute), told.host_compute)

    def dry_run_of_whole(self, n_ubatch: int) -> DryRunResult | None:
        """What the model takes in even shares, wholly on the devices; None without devices, or where it is not told."""
        count = len(self.machine.devices)
        if not count:
            return None
        return self._ask(n_ubatch, tuple(self.free), len(self.model.layers) + 1, (1.0,) * count)

    def dry_run(self, found: Plan, n_ubatch: int) -> DryRunResult | None:
        """The buffers of a plan; None where they cannot be told."""
        names = tuple(stretch.device for stretch in found.stretches)
        split = tuple(float(stretch.end - stretch.start) for stretch in found.stretches)
        return self._ask(n_ubatch, names, found.n_gpu_layers, split, overrides(found), found.offload_kv)

    def _ask(
        self,
        n_ubatch: int,
        names: tuple[str, ...],
        n_gpu_layers: int,
        split: tuple[float, ...],
        tensor_overrides: tuple[tuple[str, str], ...] = (),
        offload_kv: bool = True,
    ) -> DryRunResult | None:
        shape = self.shape(n_ubatch)
        stand_ins = any(device.hypothetical for device in self.machine.devices)
        question = DryRun(
            path=str(self.info.path),
            devices=tuple(f"RPC{i}" for i in range(len(names))) if stand_ins else names,
            n_gpu_layers=n_gpu_layers,
            tensor_split=split,
            tensor_overrides=tensor_overrides,
            offload_kv=offload_kv,
            cells=shape.cells * shape.streams,
            sequences=shape.sequences,
            unified=shape.streams == 1,
            kv_type=shape.type,
            n_batch=N_BATCH,
            n_ubatch=n_ubatch,
            rpc=() if stand_ins else self.machine.rpc,
            stand_ins=len(names) if stand_ins else 0,
        )
        return dry_run(question, self.digest)
