"""brim beside its peers: the same model, the same work, in turns.

python -m benchmarks.serving [--repeats N] [--only WORKLOAD ...]

For each workload all servers are started, and then asked in turn, another one first each time: slow minutes of the
machine meet all of them, and who is not asked is idle. Each repeat starts them anew, since some processes are a few
percent slower than others of the same program for as long as they live. Figures are medians over the turns. The result
is the ratio to each peer: the median of the turns' own ratios, which stay the same where the machine grows faster or
slower.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import workloads
from benchmarks.models import main as make_model
from benchmarks.servers import Server, Setup, model_name, running, workspace
from benchmarks.workloads import Client, Figures, Workload
from server.engine.cores import cpu_name, usable_cores

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

RESULTS = Path(__file__).parent / "results"
MODELS = Path(__file__).parents[1] / "build" / "bench-models"
PEERS = ("llama-server", "example server")

LONG = 512
"""Tokens of an answer where the demo model makes 64 in less than a tenth of a second."""

PYTHON = "Python's share of a step"
SHARE = "own share of a step"
SHARES = (PYTHON, SHARE)
"""What the decoding thread computes outside llama.cpp, and that with the time in which others have its core."""
WARMING_UP = 1_000_000
"""The seed of prompts that do not count."""

T = TypeVar("T")
Samples = dict[str, list[Figures]]


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        target: for each figure and peer, the ratio brim / peer to reach; "at least" for speeds, "at most" for times.
        servers: who takes part; context: tokens of one request.
        turns: of each server in a repeat; the shorter they are, the more.
        alone: start a server for each turn, and no other beside it: not all notice that a client has gone, and they
            would go on computing in the others' turns.
        python_share: the most of a step that may be Python's instead of llama.cpp's.
    """

    name: str
    run: Workload
    target: dict[tuple[str, str], float]
    servers: tuple[str, ...] = ("brim", *PEERS)
    model: str = "qwen0.5b"
    context: int = 2048
    turns: int = 1
    alone: bool = False
    python_share: float | None = None


CASES = (
    Case("one stream", workloads.single(), {("tokens per second", "llama-server"): 1.0}, turns=8, python_share=0.02),
    Case("2 streams", workloads.batch(2), {}, turns=2),
    Case("4 streams", workloads.batch(4), {}, turns=2),
    Case("8 streams", workloads.batch(8), {("tokens per second", "llama-server"): 1.1}, turns=2),
    Case("prompt of 2,000 tokens", workloads.long_prompt, {("TTFT", "llama-server"): 1.0}, context=2304),
    Case(
        "8 streams behind one prefix",
        workloads.shared_prefix,
        {
            ("TTFT", "llama-server"): 1 / 15,
            ("TTFT", "example server"): 1.0,
            ("tokens per second", "llama-server"): 6.0,
            ("tokens per second", "example server"): 1.1,
        },
    ),
    Case("12 conversations", workloads.conversations, {("TTFT", "llama-server"): 1.0}),
    Case(
        "5,000 tokens among 4 streams",
        workloads.intrusion,
        {
            ("worst gap", "llama-server"): 1 / 20,
            ("worst gap", "example server"): 1 / 20,
            ("TTFT", "llama-server"): 1.5,
            ("TTFT", "example server"): 1.5,
        },
        context=6144,
        alone=True,
    ),
    *(Case(f"{n} streams, 160m", workloads.batch(n), {}, model="160m", turns=2) for n in (1, 2, 4, 8)),
    Case(
        "one stream, demo", workloads.single(LONG), {("tokens per second", "llama-server"): 1.0}, model="demo", turns=8
    ),
    Case(
        "8 streams, demo", workloads.batch(8, LONG), {("tokens per second", "llama-server"): 1.1}, model="demo", turns=4
    ),
    Case(
        "an edit, demo",
        workloads.edit,
        {("tokens per second", "brim without lookup"): 1.5},
        servers=("brim", "brim without lookup"),
        model="demo",
        turns=2,
    ),
    Case(
        "one stream, lookup",
        workloads.single(),
        {("tokens per second", "brim without lookup"): 0.97},
        servers=("brim", "brim without lookup"),
        turns=8,
    ),
)
HOW_FAR_TO_TRUST = """Medians over the turns that each server took; ratios are medians of the turns' own.
Where others use the same host, ratios between 0.8 and 1.2 from a turn or two say little."""
RESTART = "next turn after a restart"
RESTART_CASE = Case(
    RESTART,
    workloads.single(),
    {("TTFT", "llama-server"): 1 / 20, ("TTFT", "example server"): 1.0},
    ("brim with disk tier", *PEERS),
)


def main(
    repeats: Annotated[int, typer.Option(help="How often each server takes its turns.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Only workloads whose name contains this.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of every server.")] = usable_cores(),
) -> None:
    """Measure, print a table of ratios, and write benchmarks/results/serving.{json,md,png}.

    With `--only`, the other workloads keep their last results; so does one in which a server fails or hangs.
    """
    console = Console()
    rows: list[tuple[Case, Measured]] = []
    failed = False
    for case, measure in MEASURES:
        if only and not any(word in case.name for word in only):
            continue
        try:
            rows.append((case, measure(case, repeats, threads, console)))
        except (httpx.HTTPError, RuntimeError) as error:
            console.print(f"{case.name} is left out, since a server failed: {error!r}", highlight=False, markup=False)
            failed = True
        else:
            _write(_with_last(rows))
    console.print(_table(rows))
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Measured:
    """What so many turns of each server gave.

    Attributes:
        figures: for each server, each figure's median.
        ratios: for each peer, the median of each figure's ratios, brim's to its own of the same turn.
    """

    turns: int
    figures: dict[str, dict[str, float]]
    ratios: dict[str, dict[str, float]]


def _measure(case: Case, repeats: int, threads: int, console: Console) -> Measured:
    samples: Samples = {name: [] for name in case.servers}
    for repeat in range(repeats):
        turns = range(repeat * case.turns, (repeat + 1) * case.turns)
        _measure_together(case, turns, threads, samples, console)
    return _measured(case, samples)


def _measure_together(case: Case, turns: Iterable[int], threads: int, samples: Samples, console: Console) -> None:
    with ExitStack() as meanwhile:
        servers = {name: meanwhile.enter_context(_started(case, name, threads)) for name in case.servers}
        tokens_per_word = max(asyncio.run(_warm_up(server)) for server in servers.values())

        def ask(name: str, turn: int) -> Figures:
            run = partial(_with_shares, servers[name], case.run) if name.startswith("brim") else case.run
            return asyncio.run(_ask(servers[name], run, turn, tokens_per_word))

        _take_turns(case, turns, ask, samples, console)


def _measure_alone(case: Case, repeats: int, threads: int, console: Console) -> Measured:
    def ask(name: str, turn: int) -> Figures:
        with _started(case, name, threads) as server:
            return asyncio.run(_ask(server, case.run, turn, asyncio.run(_warm_up(server))))

    return _in_turns(case, repeats, ask, console)


@contextmanager
def _started(case: Case, name: str, threads: int) -> Generator[Server]:
    with workspace() as folder, running(name, _setup(case, threads, folder)) as server:
        yield server


def _measure_restart(case: Case, repeats: int, threads: int, console: Console) -> Measured:
    def ask(name: str, turn: int) -> Figures:
        with workspace() as folder:
            setup = _setup(case, threads, folder)
            with running(name, setup) as server:
                tokens_per_word = asyncio.run(_warm_up(server))
                histories = asyncio.run(_ask(server, workloads.before_restart, turn, tokens_per_word))
            with running(name, setup) as server:
                asyncio.run(_warm_up(server))
                resume = partial(workloads.after_restart, histories=histories)
                return asyncio.run(_ask(server, resume, turn, tokens_per_word))

    return _in_turns(case, repeats, ask, console)


MEASURES = (*((case, _measure_alone if case.alone else _measure) for case in CASES), (RESTART_CASE, _measure_restart))
"""Each workload, and how it is measured."""


def _in_turns(case: Case, turns: int, ask: Callable[[str, int], Figures], console: Console) -> Measured:
    samples: Samples = {name: [] for name in case.servers}
    _take_turns(case, range(turns), ask, samples, console)
    return _measured(case, samples)


def _take_turns(
    case: Case, turns: Iterable[int], ask: Callable[[str, int], Figures], samples: Samples, console: Console
) -> None:
    for turn in turns:
        first = turn % len(case.servers)
        for name in (*case.servers[first:], *case.servers[:first]):
            samples[name].append(ask(name, turn))
            console.print(f"{case.name}: {name} {_rounded(samples[name][-1])}", highlight=False)


def _measured(case: Case, samples: Samples) -> Measured:
    ours, *peers = case.servers
    pairs = {peer: zip(samples[ours], samples[peer], strict=True) for peer in peers}
    return Measured(
        len(samples[ours]),
        {name: _medians(found) for name, found in samples.items()},
        {peer: _medians([_ratios(*pair) for pair in each]) for peer, each in pairs.items()},
    )


def _ratios(ours: Figures, theirs: Figures) -> Figures:
    return {figure: ours[figure] / value for figure, value in theirs.items() if figure not in SHARES}


async def _warm_up(server: Server) -> float:
    """Have a server read its weights; returns how many tokens a word has."""
    client = Client(server.url, model_name(server), seed=WARMING_UP)
    try:
        await client.calibrate()
        await client.complete(client.text(20), 8)
        return client.tokens_per_word
    finally:
        await client.close()


async def _ask(server: Server, work: Callable[[Client], Awaitable[T]], turn: int, tokens_per_word: float) -> T:
    client = Client(server.url, model_name(server), seed=turn)
    client.tokens_per_word = tokens_per_word
    try:
        return await work(client)
    finally:
        await client.close()


async def _with_shares(server: Server, work: Workload, client: Client) -> Figures:
    """A workload's figures, and what share of brim's steps was not llama.cpp's."""
    before = await _step_seconds(server)
    figures = await work(client)
    busy, device, own_cpu = (now - then for now, then in zip(await _step_seconds(server), before, strict=True))
    return figures | {PYTHON: own_cpu / busy, SHARE: 1 - device / busy}


async def _step_seconds(server: Server) -> list[float]:
    """What brim's steps have taken, what of it llama.cpp, and what the decoding thread has computed besides."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{server.url}/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return [
        next(float(value) for name, value in values.items() if name.startswith(f"brim_{kind}_seconds_total"))
        for kind in ("busy", "device", "own_cpu")
    ]


def _setup(case: Case, threads: int, folder: Path) -> Setup:
    return Setup(_model(case.model), case.context, parallel=8, threads=threads, folder=folder)


def _model(name: str) -> Path:
    path = MODELS / f"{name}.gguf"
    if not path.exists():
        MODELS.mkdir(parents=True, exist_ok=True)
        if name == "demo":
            from converter import convert

            convert(Path(__file__).parents[1] / "demo" / "checkpoint", path, "F16")
        else:
            make_model(name, path, quant="Q4_K_M")
    return path


def _medians(samples: list[Figures]) -> dict[str, float]:
    return {figure: statistics.median(sample[figure] for sample in samples) for figure in samples[0]}


def _rounded(figures: Figures) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


def _table(rows: list[tuple[Case, Measured]]) -> Table:
    table = Table(title=f"{usable_cores()} cores, {cpu_name()}")
    for column in ("workload", "figure", "brim", "peer", "ratio", "target", "", "turns"):
        table.add_column(column)
    for line in _lines(rows):
        table.add_row(*line)
    return table


def _lines(rows: list[tuple[Case, Measured]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for case, measured in rows:
        ours, *others = case.servers
        for peer in others:
            for figure, value in measured.figures[ours].items():
                if figure in SHARES:
                    continue
                theirs = measured.figures[peer][figure]
                ratio, target = measured.ratios[peer][figure], case.target.get((figure, peer))
                faster = figure == "tokens per second"
                reached = target is not None and (ratio >= target if faster else ratio <= target)
                wanted = "" if target is None else f"{'at least' if faster else 'at most'} {target:.3g}"
                verdict = "" if target is None else "reached" if reached else "missed"
                lines.append(
                    (
                        case.name,
                        figure,
                        f"{value:.3g}",
                        f"{peer} {theirs:.3g}",
                        f"{ratio:.3g}",
                        wanted,
                        verdict,
                        str(measured.turns),
                    )
                )
        shares = measured.figures[ours]
        if case.python_share is not None and PYTHON in shares:
            share, wanted = shares[PYTHON], f"under {case.python_share:.0%}"
            verdict = "reached" if share < case.python_share else "missed"
            lines.append((case.name, PYTHON, f"{share:.1%}", "", "", wanted, verdict, str(measured.turns)))
            lines.append((case.name, SHARE, f"{shares[SHARE]:.1%}", "", "", "", "", str(measured.turns)))
    return lines


def _with_last(rows: list[tuple[Case, Measured]]) -> list[tuple[Case, Measured]]:
    """These results, and the last ones of the workloads that were not measured now, in the order of all."""
    path = RESULTS / "serving.json"
    last: dict[str, dict[str, Any]] = json.loads(path.read_text())["results"] if path.exists() else {}
    measured = {name: Measured(**found) for name, found in last.items()} | {case.name: found for case, found in rows}
    return [(case, measured[case.name]) for case in (*CASES, RESTART_CASE) if case.name in measured]


def _write(rows: list[tuple[Case, Measured]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    machine = {"cpu": cpu_name(), "cores": usable_cores(), "system": platform.platform()}
    data: dict[str, object] = {"machine": machine, "results": {case.name: asdict(measured) for case, measured in rows}}
    (RESULTS / "serving.json").write_text(json.dumps(data, indent=2) + "\n")
    head = "| workload | figure | brim | peer | ratio | target | | turns |\n|---|---|---|---|---|---|---|---|\n"
    body = "".join("| " + " | ".join(line) + " |\n" for line in _lines(rows))
    title = f"# brim beside its peers\n\n{usable_cores()} cores, {cpu_name()}. {HOW_FAR_TO_TRUST}\n\n"
    (RESULTS / "serving.md").write_text(title + head + body)
    _plot(rows, RESULTS / "serving.png")


def _plot(rows: list[tuple[Case, Measured]], path: Path) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    lines = [line for line in _lines(rows) if line[1] not in ("tokens per second", *SHARES)]
    speeds = [line for line in _lines(rows) if line[1] == "tokens per second"]
    figure, panes = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
    for pane, part, title in zip(
        panes, (speeds, lines), ("speed: more is better", "time: less is better"), strict=True
    ):
        labels = [f"{name}\n{what} / {peer.rsplit(' ', 1)[0]}" for name, what, _, peer, *_ in part]
        pane.barh(labels, [float(line[4]) for line in part], color="#2a7fb8")
        pane.axvline(1.0, color="black", linewidth=0.8)
        pane.set_xscale("log")
        pane.set_title(f"brim / peer, {title}")
        pane.invert_yaxis()
        pane.tick_params(axis="y", labelsize=7)
    cast("Any", figure).savefig(path, dpi=110)  # matplotlib annotates it only in part


if __name__ == "__main__":
    typer.run(main)
