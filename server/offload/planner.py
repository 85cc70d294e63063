"""The planner: which layers go to which device, and what of a layer stays behind.

It reads as one argument. A model is a row of *items*: its layers, then its output. llama.cpp offloads a suffix of that
row and cuts it into one stretch per device, so a placement is where the suffix starts and where each stretch ends.
Within a stretch a layer may leave part of itself on the host: first its routed experts, of which a token reads few,
then its whole feed-forward network, but never its attention, beside which the KV cache lives. Time per token is a sum
over the items, so the best row of stretches is found from its end, device by device, by dynamic programming; and the
best things to leave behind, for a stretch that is too large, come from a *frontier*: for each number of bytes freed,
the least time lost.

Each candidate exists whatever memory there is, and memory only decides which are feasible. Hence more memory never
gives a slower plan. Everything here is arithmetic: no files, no devices, no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from server.offload.speed import Speed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.offload.footprint import Footprint, KvShape

UBATCHES = (512, 256)
"""Larger ones make prompts faster, smaller ones leave more memory to layers."""
FRONTIER_POINTS = 160
INFINITY = float("inf")


class Cut(IntEnum):
    """What of an offloaded layer stays on the host."""

    NOTHING = 0
    EXPERTS = 1
    FFN = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """A device as the planner sees it.

    Attributes:
        capacity: bytes for weights, KV and compute buffers; margins and the backend's own overhead are already off.
        compute: bytes of compute buffers where the device holds layers only. compute_output: where it holds the output.
    """

    name: str
    capacity: int
    speed: Speed
    compute: int = 0
    compute_output: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """All that a plan depends on.

    Attributes:
        depth: tokens in the sequence at which speed is predicted.
        first: the first offloaded item, where the user chose the number of layers; else the planner's to choose.
        earliest: no item before this one may be offloaded, because that was seen to fail.
    """

    model: Footprint
    host: Speed
    devices: tuple[Budget, ...]
    kv: KvShape
    depth: int
    first: int | None = None
    earliest: int = 0

    @property
    def n_items(self) -> int:
        """Layers and the output."""
        return len(self.model.layers) + 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive items on one device: layers from `start` to before `end`, the output where `end` is the last item's.

    `cuts` has one entry per item. Sizes in bytes.
    """

    device: str
    start: int
    end: int
    cuts: tuple[Cut, ...]
    weights: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        """All bytes on the device."""
        return self.weights + self.kv + self.compute


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement, what it takes and how fast it will be.

    Attributes:
        stretches: in item order; devices without one are unused.
        host_weights, host_kv: bytes left on the host. seconds: predicted for one token.
    """

    problem: Problem
    stretches: tuple[Stretch, ...]
    offload_kv: bool
    seconds: float
    host_weights: int
    host_kv: int

    @property
    def layers_on_device(self) -> int:
        """Repeating layers offloaded, whole or cut."""
        last = len(self.problem.model.layers)
        return sum(min(s.end, last) - min(s.start, last) for s in self.stretches)

    @property
    def whole_layers(self) -> int:
        """Repeating layers with all their parts on devices."""
        last = len(self.problem.model.layers)
        return sum(s.cuts[: last - s.start].count(Cut.NOTHING) for s in self.stretches)

    @property
    def n_gpu_layers(self) -> int:
        """What llama.cpp calls it: offloaded items, the output included."""
        return sum(s.end - s.start for s in self.stretches)

    @property
    def whole(self) -> bool:
        """Whether everything that can be is on devices."""
        cut = any(c for s in self.stretches for c in s.cuts)
        return self.n_gpu_layers == self.problem.n_items and self.offload_kv and not cut

    @property
    def tokens_per_second(self) -> float:
        """Predicted speed of decoding one sequence."""
        return 1 / self.seconds if self.seconds else 0.0

    def with_compute(self, sizes: Sequence[int]) -> Plan:
        """The same with the compute buffers that a dry run told, one size for each stretch."""
        stretches = (replace(stretch, compute=size) for stretch, size in zip(self.stretches, sizes, strict=True))
        return replace(self, stretches=tuple(stretches))


def plan(problem: Problem) -> Plan:
    """The fastest feasible placement; all on the host where nothing is both feasible and faster.

    Where `problem.first` asks for more than fits, the placement takes as much of it as does.
    """
    frontiers: Frontiers = {}  # they do not depend on where KV lives
    searches = [_Search(problem, offload_kv, frontiers) for offload_kv in (True, False)]
    starts = range(max(problem.first or 0, problem.earliest), problem.n_items + 1)
    candidates = [(search.seconds(start), search, start) for start in starts for search in searches]
    if problem.first is not None:  # what the user asked for, or as much of it as fits
        start = next(start for seconds, _, start in candidates if seconds < INFINITY)
        candidates = [candidate for candidate in candidates if candidate[2] == start]
    _, search, start = min(candidates, key=lambda candidate: candidate[0])  # the first of equals: KV on the devices
    return search.as_plan(start)


@dataclass(frozen=True, slots=True)
class _Point:
    """One way to leave parts of a stretch behind: bytes freed, seconds lost, and how, as a linked list of cuts."""

    freed: int
    lost: float
    cut: Cut = Cut.NOTHING
    rest: _Point | None = None


Frontiers = dict[tuple[Speed, int], list[list[_Point]]]
"""For a device's speed and a stretch's end: the frontiers of the stretches of 0, 1, 2, ... items that end there."""


class _Search:
    """The search for one choice of where KV lives."""

    def __init__(self, problem: Problem, offload_kv: bool, frontiers: Frontiers) -> None:
        self.problem = problem
        self.offload_kv = offload_kv
        self.frontiers = frontiers
        model = problem.model
        self.kv = [layer.kv_bytes(problem.kv) for layer in model.layers] + [0]
        self.kv_read = [layer.kv_read(problem.kv, problem.depth) for layer in model.layers] + [0.0]
        self.weights = [layer.weights for layer in model.layers] + [model.output]
        self.read = [layer.attention + layer.ffn_read for layer in model.layers] + [float(model.output)]
        on_device = [w + (kv if offload_kv else 0) for w, kv in zip(self.weights, self.kv, strict=True)]
        self.bytes_before = [0, *accumulate(on_device)]
        self.ffn_before = [0, *accumulate(layer.ffn for layer in model.layers)]
        self.ffn_before.append(self.ffn_before[-1])
        self.read_before = [0.0, *accumulate(self.read)]
        self.kv_read_before = [0.0, *accumulate(self.kv_read)]
        self.attending_before = [0, *accumulate(int(read > 0) for read in self.kv_read)]
        self.rows = self.rows_from_the_end()

    def seconds(self, start: int) -> float:
        """Predicted seconds for one token with the items from `start` on offloaded; infinity where they do not fit."""
        return self.host_seconds(start) + self.rows[0][start][0]

    def rows_from_the_end(self) -> list[list[tuple[float, int]]]:
        """For each device and item: the least seconds from that item on, and where the device's stretch then ends.

        Counted are the stretch of this device and those of the devices after it.
        """
        n = self.problem.n_items
        after: list[tuple[float, int]] = [(INFINITY, n)] * n + [(0.0, n)]
        rows = [after]
        for budget in reversed(self.problem.devices):
            row = [
                min(
                    ((self.stretch_seconds(budget, start, end) + after[end][0], end) for end in range(start, n + 1)
                     if after[end][0] < INFINITY),
                    default=(INFINITY, n),
                )
                for start in range(n + 1)
            ]  # fmt: skip
            after = row
            rows.insert(0, row)
        return rows

    def layers_in(self, start: int, end: int) -> int:
        """Repeating layers among the items from `start` to before `end`; the last item is the output."""
        return min(end, self.problem.n_items - 1) - min(start, self.problem.n_items - 1)

    def host_seconds(self, start: int) -> float:
        """Seconds for the items before `start`."""
        host = self.problem.host
        reading = self.read_before[start] / host.bandwidth + self.kv_read_before[start] / host.kv_bandwidth
        return reading + self.layers_in(0, start) * host.layer + host.call

    def stretch_seconds(self, budget: Budget, start: int, end: int) -> float:
        """Seconds for a stretch with the best cuts that make it fit; infinity where none do."""
        if start == end:
            return 0.0
        point = self.cheapest_cuts(budget, start, end)
        if point is None:
            return INFINITY
        speed, host = budget.speed, self.problem.host
        seconds = (self.read_before[end] - self.read_before[start]) / speed.bandwidth + speed.call + point.lost
        seconds += self.layers_in(start, end) * speed.layer
        kv_read = self.kv_read_before[end] - self.kv_read_before[start]
        if self.offload_kv:
            seconds += kv_read / speed.kv_bandwidth
        else:  # each layer's attention is computed on the host, between two calls of the device
            attending = self.attending_before[end] - self.attending_before[start]
            seconds += kv_read / host.kv_bandwidth + attending * (host.call + speed.call)
        return seconds + (speed.logits if end == self.problem.n_items else 0.0)

    def cheapest_cuts(self, budget: Budget, start: int, end: int) -> _Point | None:
        """What to leave behind so that a stretch fits, at the least loss; None where it cannot fit."""
        compute = budget.compute_output if end == self.problem.n_items else budget.compute
        excess = self.bytes_before[end] - self.bytes_before[start] + compute - budget.capacity
        if excess <= 0 and budget.speed.bandwidth >= self.problem.host.bandwidth:
            return _Point(0, 0.0)
        if excess > self.ffn_before[end] - self.ffn_before[start]:
            return None
        frontier = self.frontier(budget.speed, start, end)
        return frontier[bisect_left(frontier, excess, key=lambda point: point.freed)]

    def frontier(self, speed: Speed, start: int, end: int) -> list[_Point]:
        """All undominated ways to cut a stretch, by bytes freed; built item by item from the stretch's end."""
        built = self.frontiers.setdefault((speed, end), [[_Point(0, 0.0)]])
        while len(built) <= end - start:
            built.append(_extended(built[-1], self.cuts_of(end - len(built), speed)))
        return built[end - start]

    def cuts_of(self, item: int, speed: Speed) -> list[tuple[Cut, int, float]]:
        """What an item can leave behind: bytes freed and seconds lost for each cut."""
        if item == len(self.problem.model.layers):
            return []
        layer, host = self.problem.model.layers[item], self.problem.host
        crossing = host.call + speed.call
        per_byte = 1 / host.bandwidth - 1 / speed.bandwidth
        cuts: list[tuple[Cut, int, float]] = []
        if layer.experts:
            cuts.append((Cut.EXPERTS, layer.experts, layer.experts * layer.active * per_byte + crossing))
        if layer.dense or layer.shared:
            cuts.append((Cut.FFN, layer.ffn, layer.ffn_read * per_byte + crossing))
        return cuts

    def as_plan(self, start: int) -> Plan:
        """Write down the placement that begins at `start`."""
        problem, position = self.problem, start
        stretches: list[Stretch] = []
        for budget, row in zip(problem.devices, self.rows, strict=False):
            end = row[position][1]
            if end > position:
                stretches.append(self.as_stretch(budget, position, end))
            position = end
        weights = sum(stretch.weights for stretch in stretches)
        kv = sum(stretch.kv for stretch in stretches)
        return Plan(
            problem=problem,
            stretches=tuple(stretches),
            offload_kv=self.offload_kv,
            seconds=self.seconds(start),
            host_weights=problem.model.host_only(offloaded=weights, with_output=bool(stretches)),
            host_kv=sum(self.kv) - kv,
        )

    def as_stretch(self, budget: Budget, start: int, end: int) -> Stretch:
        """Write down one device's stretch with its cuts."""
        best = point = self.cheapest_cuts(budget, start, end)
        assert best is not None and point is not None
        cuts: list[Cut] = []
        while point.rest is not None:
            cuts.append(point.cut)
            point = point.rest
        cuts += [Cut.NOTHING] * (end - start - len(cuts))
        return Stretch(
            device=budget.name,
            start=start,
            end=end,
            cuts=tuple(cuts),
            weights=sum(self.weights[start:end]) - best.freed,
            kv=sum(self.kv[start:end]) if self.offload_kv else 0,
            compute=budget.compute_output if end == self.problem.n_items else budget.compute,
        )


def _extended(frontier: list[_Point], cuts: list[tuple[Cut, int, float]]) -> list[_Point]:
    """A frontier with one more item in front, which may be kept whole or cut."""
    points = [_Point(point.freed, point.lost, Cut.NOTHING, point) for point in frontier]
    points += [_Point(p.freed + freed, p.lost + lost, cut, p) for cut, freed, lost in cuts for p in frontier]
    points.sort(key=lambda point: (-point.freed, point.lost))
    kept: list[_Point] = []
    least = INFINITY
    for point in points:  # from most freed to least: a point stays where it loses less than all before it
        if point.lost < least:
            kept.append(point)
            least = point.lost
    kept.reverse()
    return kept if len(kept) <= FRONTIER_POINTS else _thinned(kept)


def _thinned(points: list[_Point]) -> list[_Point]:
    """One point per equal step of bytes freed: the one that frees most in its step. The ends stay."""
    step = points[-1].freed / (FRONTIER_POINTS - 2)
    kept = [point for point, following in pairwise(points) if int(point.freed / step) != int(following.freed / step)]
    first = [points[0]] if not kept or kept[0] is not points[0] else []
    return first + kept + [points[-1]]
