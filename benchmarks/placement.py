"""Does the planner rank placements as a machine does? Predicted and measured speed over real RPC devices.

python -m benchmarks.placement [--repeats 3]

Devices are other processes on this machine: the first computes with all cores, the second and the host with one, so
that they differ. The placements go from the CPU alone through some layers, whole or without their feed-forward parts,
to the whole model on one device, and over two; of all that the planner makes for many budgets, those are taken
whose predictions differ, since the order of the others means nothing. Best run on a machine that does nothing else.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import structs
from rich.console import Console
from rich.table import Table

from converter.convert import quantize
from converter.gguf_info import read_gguf_info
from server.engine.cores import cpu_name, usable_cores
from server.engine.load_spec import LoadSpec
from server.offload.asking import ask
from server.offload.devices import discover
from server.offload.footprint import footprint
from server.offload.planner import UBATCHES, Cut, Plan, plan
from server.offload.questions import DeviceSpeed, Measure, Speeds
from server.offload.solving import Outcome, Solver
from server.offload.wish import GpuLayers, Wish
from tests.offload.models import RANDOM_160M, write_random
from tests.offload.workers import decoding, rpc_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converter.gguf_info import GGUFInfo
    from server.offload.devices import Machine

RESULTS = Path(__file__).parent / "results"
CONTEXT = 512
TOKENS = 40
DEPTH = 60
"""Tokens in the sequence while speed is measured, on average."""
MIB = 1 << 20
UNBOUNDED = 1 << 50
BUDGETS: tuple[tuple[GpuLayers, tuple[int, ...]], ...] = (
    *((layers, (UNBOUNDED,)) for layers in range(12)),
    ("all", (UNBOUNDED,)),
    *(("all", (size * MIB,)) for size in range(90, 150, 6)),
    *((8, (size * MIB,)) for size in (100, 120)),
    *(("all", (80 * MIB, size * MIB)) for size in (60, 150)),
    *(("all", (60 * MIB, size * MIB)) for size in (60, 80, 110)),
)
"""Layers, and bytes of each device; where the bytes do not suffice, feed-forward parts stay on the CPU."""
APART = 1.06
"""How far two predictions must differ for their order to count: as much as the same step does from turn to turn."""
CALIBRATIONS = 4


@dataclass
class Row:
    """One placement. Times are for one token, in milliseconds."""

    placement: str
    predicted_ms: float
    measured_ms: float = float("inf")


def main(repeats: Annotated[int, typer.Option(help="Measurements of each placement; the fastest counts.")] = 3) -> None:
    """Measure placements and compare their order with the predicted one."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, rpc_worker(usable_cores()) as first, rpc_worker(1) as second:
        path = Path(folder) / "random-160m-q4_k_m.gguf"
        quantize(write_random(RANDOM_160M, Path(folder) / "random-160m.gguf"), path, "Q4_K_M")
        endpoints = (first.endpoint, second.endpoint)
        speeds = _measured(endpoints)
        outcomes = _apart(_outcomes(read_gguf_info(path), discover(endpoints), speeds))
        rows = [Row(_describe(outcome.plan), 1000 * outcome.plan.seconds) for outcome in outcomes]
        for _ in range(repeats):  # in turns, so that a slow minute meets all of them
            for row, outcome in zip(rows, outcomes, strict=True):
                spec = LoadSpec(
                    path=str(path), name="m", digest="", placement=outcome.placement(), context=CONTEXT, parallel=1,
                    rpc=endpoints, threads=1,
                )  # fmt: skip
                with decoding(spec, TOKENS) as result:
                    row.measured_ms = min(row.measured_ms, 1000 * statistics.median(result["step_seconds"]))
                    console.print(f"{row.placement}: {row.measured_ms:.1f} ms", highlight=False)
    _report(rows, speeds)


def _measured(endpoints: tuple[str, ...]) -> dict[str, DeviceSpeed]:
    """The host with one thread and the devices, timed just now; the fastest counts, since others only disturb."""
    speeds: dict[str, DeviceSpeed] = {}
    for _ in range(CALIBRATIONS):
        answer = ask(Measure(("CPU", "RPC0", "RPC1"), endpoints, 1), time_limit=120)
        if not isinstance(answer, Speeds):
            raise SystemExit(f"the devices could not be measured: {answer}")
        for found in answer.devices:
            speeds[found.name] = _faster(speeds.get(found.name, found), found)
    return speeds


def _faster(one: DeviceSpeed, other: DeviceSpeed) -> DeviceSpeed:
    return structs.replace(
        one,
        bandwidth={name: max(speed, other.bandwidth[name]) for name, speed in one.bandwidth.items()},
        attention=max(one.attention, other.attention),
        call=min(one.call, other.call),
        operation=min(one.operation, other.operation),
        link=max(one.link, other.link),
    )


def _outcomes(info: GGUFInfo, machine: Machine, speeds: dict[str, DeviceSpeed]) -> Iterator[Outcome]:
    """What the planner makes of each budget."""
    for layers, sizes in BUDGETS:
        devices = tuple(
            replace(device, total=size, free=size) for device, size in zip(machine.devices, sizes, strict=False)
        )
        wish = Wish(CONTEXT, 1, "f16", layers)
        solver = Solver(info, footprint(info), replace(machine, devices=devices), wish, speeds, depth=DEPTH)
        found = plan(solver.problem(solver.buffers_of_whole(UBATCHES[0]), UBATCHES[0]))
        yield Outcome(wish, machine, found, solver.budgets, UBATCHES[0], 0, False)


def _apart(outcomes: Iterator[Outcome]) -> list[Outcome]:
    """Those whose predictions differ enough to be ranked, the fastest first."""
    kept: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda each: each.plan.seconds):
        if not kept or outcome.plan.seconds >= APART * kept[-1].plan.seconds:
            kept.append(outcome)
    return kept


def _describe(found: Plan) -> str:
    if not found.stretches:
        return "CPU alone"
    places = [
        f"{min(stretch.end, RANDOM_160M.layers) - stretch.start} on {stretch.device}" for stretch in found.stretches
    ]
    cut = sum(cut is Cut.FFN for stretch in found.stretches for cut in stretch.cuts)
    remarks = [f"{cut} without feed-forward part"] * bool(cut) + ["KV on the host"] * (not found.offload_kv)
    return ", ".join([*places, *remarks])


def spearman(a: list[float], b: list[float]) -> float:
    """The correlation of two lists' ranks; the lists have no equal values."""

    def ranks(values: list[float]) -> list[float]:
        return [float(sorted(values).index(value)) for value in values]

    return statistics.correlation(ranks(a), ranks(b))


def _report(rows: list[Row], speeds: dict[str, DeviceSpeed]) -> None:
    correlation = spearman([row.predicted_ms for row in rows], [row.measured_ms for row in rows])
    table = Table("layers on devices", "predicted, ms", "measured, ms", box=None)
    lines = ["| layers on devices | predicted, ms a token | measured, ms a token |", "|---|---|---|"]
    for row in rows:
        table.add_row(row.placement, f"{row.predicted_ms:.1f}", f"{row.measured_ms:.1f}")
        lines.append(f"| {row.placement} | {row.predicted_ms:.1f} | {row.measured_ms:.1f} |")
    console = Console()
    console.print(table)
    console.print(f"Spearman correlation: {correlation:.3f}")
    RESULTS.mkdir(exist_ok=True)
    machine = f"{cpu_name()}, {usable_cores()} cores"
    text = (
        "# Placements, predicted and measured\n\n"
        f"A random model of 160 million weights in Q4_K_M on {machine}.\n"
        "The devices are RPC workers on the same machine: RPC0 computes with all cores, RPC1 and the host with one.\n"
        f"Of the placements for {len(BUDGETS)} budgets, those whose predictions differ by {APART - 1:.0%} at least.\n\n"
        + "\n".join(lines)
        + f"\n\nSpearman correlation of the ranks: {correlation:.3f}.\n"
    )
    (RESULTS / "placement.md").write_text(text)
    report = {
        "machine": machine,
        "speeds": {name: structs.asdict(speed) for name, speed in speeds.items()},
        "placements": [asdict(row) for row in rows],
        "spearman": correlation,
    }
    (RESULTS / "placement.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
