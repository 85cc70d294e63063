"""Does the planner rank placements as this machine does? Predicted and measured speed over a real RPC device.

python -m benchmarks.placement [--repeats 3]

The device is another process on this machine that computes with all cores, while the host computes with one, so that
the two differ. The figures are only good on a machine that does nothing else.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from converter.gguf_info import read_gguf_info
from server.engine.cores import cpu_name, usable_cores
from server.engine.messages import LoadSpec, Placement
from server.offload.asking import ask
from server.offload.devices import discover
from server.offload.footprint import footprint
from server.offload.planner import UBATCHES, plan
from server.offload.questions import DeviceSpeed, Measure, Speeds
from server.offload.solving import Outcome, Solver, Wish
from tests.offload.models import RANDOM_160M, write_random
from tests.offload.workers import decoding, rpc_worker

RESULTS = Path(__file__).parent / "results" / "placement.json"
CONTEXT = 2048
TOKENS = 40


def main(repeats: Annotated[int, typer.Option(help="Measurements of each placement; the fastest counts.")] = 3) -> None:
    """Measure every other number of offloaded layers and compare the order with the predicted one."""
    with tempfile.TemporaryDirectory() as folder, rpc_worker(usable_cores()) as worker:
        path = write_random(RANDOM_160M, Path(folder) / "random-160m.gguf")
        info = read_gguf_info(path)
        machine = discover((worker.endpoint,))
        speeds = _measured(worker.endpoint)
        layers = range(0, RANDOM_160M.layers + 2, 2)
        predicted: dict[int, float] = {}
        measured: dict[int, list[float]] = {n: [] for n in layers}
        placements: dict[int, Placement] = {}
        for n in layers:
            solver = Solver(info, footprint(info), machine, Wish(CONTEXT, 1, "f16", n), speeds, depth=40)
            found = plan(solver.problem(solver.estimated(UBATCHES[0]), UBATCHES[0]))
            predicted[n] = found.seconds
            placements[n] = Outcome(solver.wish, machine, found, solver.budgets, UBATCHES[0], 0, False).placement()
        for _ in range(repeats):  # in turns, so that a slow minute meets all of them
            for n in layers:
                spec = LoadSpec(
                    path=str(path), name="m", digest="", placement=placements[n], context=CONTEXT, parallel=1,
                    rpc=(worker.endpoint,), threads=1,
                )  # fmt: skip
                with decoding(spec, TOKENS) as result:
                    measured[n].append(result["seconds"])
    best = {n: min(times) for n, times in measured.items()}
    _report(predicted, best, speeds)


def _measured(endpoint: str) -> dict[str, DeviceSpeed]:
    """The host with one thread and the device, timed just now."""
    answer = ask(Measure(("CPU", "RPC0"), (endpoint,), 1))
    if not isinstance(answer, Speeds):
        raise SystemExit(f"the devices could not be measured: {answer}")
    return {speed.name: speed for speed in answer.devices}


def spearman(a: list[float], b: list[float]) -> float:
    """The correlation of two lists' ranks."""

    def ranks(values: list[float]) -> list[float]:
        return [float(sorted(values).index(value)) for value in values]

    return statistics.correlation(ranks(a), ranks(b))


def _report(predicted: dict[int, float], measured: dict[int, float], speeds: dict[str, DeviceSpeed]) -> None:
    correlation = spearman(list(predicted.values()), list(measured.values()))
    table = Table("layers on the device", "predicted, ms", "measured, ms", box=None)
    for n, seconds in predicted.items():
        table.add_row(str(n), f"{1000 * seconds:.1f}", f"{1000 * measured[n]:.1f}")
    console = Console()
    console.print(table)
    console.print(f"Spearman correlation: {correlation:.3f}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "cpu": cpu_name(),
                "cores": usable_cores(),
                "bandwidth": {name: speed.bandwidth for name, speed in speeds.items()},
                "predicted_seconds": predicted,
                "measured_seconds": measured,
                "spearman": correlation,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    typer.run(main)
