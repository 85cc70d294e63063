"""The draft model as a companion: what it takes, and how much sooner an answer's token comes with it.

Sources: server.engine.draft (its context), server.engine.speculation (how many tokens it is asked to guess).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import structs

from converter.gguf_format import align
from server.engine.load_spec import Placement
from server.engine.speculation import LONGEST, Acceptance
from server.offload.companion import Bytes, Guest, gave_way
from server.offload.compute import dry_run, estimate, header_digest, kv_bytes
from server.offload.footprint import CELL_PADDING, Footprint, KvShape, footprint
from server.offload.holding import HOST, Role
from server.offload.planner import Budget, Problem, plan
from server.offload.questions import DryRun, DryRunResult
from server.offload.speed import depth_for, speed_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converter.gguf_info import GGUFInfo
    from server.offload.devices import Machine
    from server.offload.questions import DeviceSpeed
    from server.offload.wish import Wish

BATCH = 512
"""Tokens that the draft's context computes at a time."""
UNBOUNDED = 1 << 60


@dataclass(frozen=True)
class Draft:
    """A small model of the same vocabulary that proposes tokens."""

    info: GGUFInfo

    @property
    def role(self) -> Role:
        """What it does for the model."""
        return "draft"

    @cached_property
    def model(self) -> Footprint:
        """What its layers take."""
        return footprint(self.info)

    @property
    def layers(self) -> int:
        """Its repeating layers."""
        return len(self.model.layers)

    @property
    def least_batch(self) -> int:
        """It asks nothing of the model."""
        return 0

    def homes(self, machine: Machine) -> tuple[str, ...]:
        """Any device, or the CPU."""
        devices = () if gave_way(self.info, machine) else machine.devices
        return (*(device.name for device in devices), HOST)

    def shape(self, wish: Wish) -> KvShape:
        """Its KV cache: for each of the parallel sequences a buffer of as many cells as a request has tokens."""
        return KvShape(align(wish.context, CELL_PADDING), wish.parallel, wish.parallel, wish.kv_type, BATCH)

    def at(self, home: str, wish: Wish, machine: Machine, *, exact: bool) -> Guest:
        """All but its token embeddings is in its home."""
        shape = self.shape(wish)
        exactly = self._dry_run(home, shape, machine) if exact else None
        kv = kv_bytes(self.model.kv_bytes(shape), exactly)
        told = exactly or estimate(self.model, shape, int(home != HOST), BATCH)
        if home == HOST:
            return Guest(self, home, Bytes(), Bytes(self.model.weights, kv, told.host_compute))
        weights = sum(layer.weights for layer in self.model.layers) + self.model.output
        embeddings = self.model.host_only(offloaded=weights, with_output=True)
        return Guest(self, home, Bytes(weights, kv, told.compute[0]), Bytes(embeddings, 0, told.host_compute))

    def _dry_run(self, home: str, shape: KvShape, machine: Machine) -> DryRunResult | None:
        stand_in = any(device.hypothetical for device in machine.devices)
        offloaded = home != HOST
        question = DryRun(
            path=str(self.info.path),
            devices=("RPC0" if stand_in else home,) if offloaded else (),
            n_gpu_layers=self.layers + 1 if offloaded else 0,
            tensor_split=(1.0,) if offloaded else (),
            cells=shape.cells * shape.streams,
            sequences=shape.sequences,
            unified=False,
            kv_type=shape.type,
            n_batch=BATCH,
            n_ubatch=BATCH,
            rpc=() if stand_in else machine.rpc,
            stand_ins=int(stand_in and offloaded),
        )
        return dry_run(question, header_digest(self.info))

    def seconds(self, model_seconds: float, home: str, wish: Wish, speeds: Mapping[str, DeviceSpeed]) -> float:
        """What a token takes with the best number of guesses, as the engine weighs it, at the usual acceptance."""
        guess = self.guess_seconds(home, wish, speeds)
        rate = Acceptance().rate
        expected = [sum(rate**i for i in range(guesses + 1)) for guesses in range(LONGEST + 1)]
        return min((model_seconds + guesses * guess) / tokens for guesses, tokens in enumerate(expected))

    def guess_seconds(self, home: str, wish: Wish, speeds: Mapping[str, DeviceSpeed]) -> float:
        """Predicted seconds for one guessed token."""
        devices = () if home == HOST else (Budget(home, UNBOUNDED, speed_for(self.model, speeds[home])),)
        host = speed_for(self.model, speeds[HOST])
        return plan(Problem(self.model, host, devices, self.shape(wish), depth_for(wish.context), first=0)).seconds


def draft_placement(guest: Guest) -> Placement:
    """A draft's home in the worker's terms."""
    placement = Placement(n_batch=BATCH, n_ubatch=BATCH, summary=guest.summary)
    if guest.home == HOST:
        return placement
    return structs.replace(placement, devices=(guest.home,), n_gpu_layers=guest.layers + 1, tensor_split=(1.0,))
