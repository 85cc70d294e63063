"""A plan for people and for programs: a table, bars and a map in the terminal, and a dictionary for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from server.offload.advice import Comparison, advice
from server.offload.planner import Cut, Plan, Stretch
from server.sizes import format_size

if TYPE_CHECKING:
    from server.offload.companion import Guest
    from server.offload.solving import Outcome

BAR = 48
"""Characters of a memory bar."""
ROW = 64
"""Layers in one line of the map."""
WHOLE, PART, REST, NONE = "█", "▓", "▒", "·"
MEMORY_MARKS = (
    ("weights", "█", "green"), ("KV", "▓", "cyan"), ("compute", "▒", "magenta"), ("beside it", "░", "yellow"),
    ("free", "·", "dim"),
)  # fmt: skip


def as_dict(name: str, outcome: Outcome, comparison: Comparison) -> dict[str, Any]:
    """Everything about a plan, in bytes and tokens a second."""
    found = outcome.plan
    everything = comparison.all_on_device
    return {
        "model": name,
        "architecture": found.problem.model.architecture,
        "context": outcome.wish.context,
        "parallel": outcome.wish.parallel,
        "kv_type": outcome.wish.kv_type,
        "layers_total": len(found.problem.model.layers),
        "layers_on_gpu": found.whole_layers,
        "layers_partly_on_gpu": found.layers_on_device - found.whole_layers,
        "predicted_tokens_per_second": found.tokens_per_second,
        "drafted_tokens_per_second": 1 / outcome.drafted_seconds if outcome.drafted_seconds else None,
        "cpu_only_tokens_per_second": comparison.cpu_only.tokens_per_second,
        "all_on_gpu_tokens_per_second": everything.tokens_per_second if everything else None,
        "devices": [_device(outcome, device.name) for device in outcome.machine.devices],
        "companions": [_companion(guest) for guest in outcome.guests],
        "host": {
            "available_bytes": outcome.machine.host.available,
            "weights_bytes": found.host_weights,
            "kv_bytes": found.host_kv,
            "compute_bytes": outcome.host_compute,
        },
        "placement": msgspec.to_builtins(outcome.placement()),
        "compute_buffers_exact": outcome.exact,
        "advice": advice(outcome),
        "warnings": list(outcome.machine.warnings),
    }


def _companion(guest: Guest) -> dict[str, Any]:
    return {
        "role": guest.role,
        "path": str(guest.companion.info.path),
        "layers_total": guest.layers,
        "device": guest.home,
        "weights_bytes": guest.at_home.weights,
        "kv_bytes": guest.at_home.kv,
        "compute_bytes": guest.at_home.compute,
        "host_bytes": guest.on_host.total,
    }


def _device(outcome: Outcome, name: str) -> dict[str, Any]:
    device = next(device for device in outcome.machine.devices if device.name == name)
    stretch = stretch_on(outcome.plan, name)
    last = len(outcome.plan.problem.model.layers)
    beside = outcome.guests_on(name)
    return {
        "name": name,
        "description": device.description,
        "total_bytes": device.total,
        "free_bytes": device.free,
        "budget_bytes": outcome.budgets[name],
        "weights_bytes": stretch.weights if stretch else 0,
        "kv_bytes": stretch.kv if stretch else 0,
        "compute_bytes": stretch.compute if stretch else 0,
        "companion_bytes": beside,
        "free_after_bytes": outcome.budgets[name] - beside - (stretch.total if stretch else 0),
        "first_layer": stretch.start if stretch else None,
        "last_layer": min(stretch.end, last) - 1 if stretch else None,
        "holds_output": bool(stretch) and stretch.end > last,
    }


def stretch_on(found: Plan, name: str) -> Stretch | None:
    """What a plan puts on a device."""
    return next((stretch for stretch in found.stretches if stretch.device == name), None)


def as_text(name: str, outcome: Outcome, comparison: Comparison) -> RenderableType:
    """The whole report for the terminal."""
    found, wish = outcome.plan, outcome.wish
    model = found.problem.model
    heading = Text.assemble(
        (name, "bold"),
        f": {model.architecture}, {len(model.layers)} layers, {format_size(model.weights)} of weights; "
        f"context {wish.context:,}, KV in {wish.kv_type}, {wish.parallel} in parallel",
    )
    warnings = [Text(f"warning: {warning}", "yellow") for warning in outcome.machine.warnings]
    bars = [_memory_bar(outcome, device.name) for device in outcome.machine.devices]
    legend = [Text("  ".join(f"{mark} {label}" for label, mark, _ in MEMORY_MARKS), "dim")] * bool(bars)
    end = [_speeds(outcome, comparison), advice(outcome)]
    return Group(heading, *warnings, "", _table(outcome), "", *bars, *legend, "", *_layer_map(found), "", *end)


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device")
    for column in ("layers", "weights", "KV", "compute", "free after"):
        table.add_column(column, justify="right")
    found = outcome.plan
    last = len(found.problem.model.layers)
    for device in outcome.machine.devices:
        facts = _device(outcome, device.name)
        sizes = (facts[key] for key in ("weights_bytes", "kv_bytes", "compute_bytes", "free_after_bytes"))
        shared = " (shares the host's memory)" if device.shares_host_memory else ""
        table.add_row(
            f"{device.name} {device.description}{shared}", _layers_on(found, device.name), *map(format_size, sizes)
        )
    host = (found.host_weights, found.host_kv, outcome.host_compute, outcome.host_free)
    table.add_row("CPU", f"{last - found.layers_on_device} of {last}", *map(format_size, host))
    for guest in outcome.guests:
        sizes = (guest.at_home.weights, guest.at_home.kv, guest.at_home.compute)
        layers = f"{guest.layers} of {guest.layers}"
        table.add_row(
            f"{guest.role} {guest.companion.info.path.stem} on {guest.home}", layers, *map(format_size, sizes)
        )
    return table


def _layers_on(found: Plan, name: str) -> str:
    """How many layers a device holds, whole and in part."""
    last = len(found.problem.model.layers)
    stretch = stretch_on(found, name)
    cuts = stretch.cuts[: last - stretch.start] if stretch else ()
    whole = cuts.count(Cut.NOTHING)
    return f"{whole} of {last}" + (f" + {len(cuts) - whole} in part" if whole < len(cuts) else "")


def _memory_bar(outcome: Outcome, name: str) -> Text:
    """One device's budget, filled."""
    stretch = stretch_on(outcome.plan, name)
    own = (stretch.weights, stretch.kv, stretch.compute) if stretch else (0, 0, 0)
    sizes = (*own, outcome.guests_on(name))
    budget = max(1, outcome.budgets[name])
    text = Text(f"{name:<8} ")
    drawn = filled = 0
    for size, (_, mark, style) in zip((*sizes, budget - sum(sizes)), MEMORY_MARKS, strict=True):
        filled += size
        upto = round(BAR * filled / budget)
        text.append(mark * (upto - drawn), style)
        drawn = max(drawn, upto)
    return text.append(f" {sum(sizes) / budget:.0%} of {format_size(budget)}")


@dataclass(frozen=True, slots=True)
class _Place:
    """One line of the layer map: what of each layer a place holds."""

    name: str
    marks: str


def _layer_map(found: Plan) -> list[RenderableType]:
    """Which layers are where: a line for each device and for the CPU, a character for each layer."""
    n = len(found.problem.model.layers)
    host = [WHOLE] * n
    places: list[_Place] = []
    for stretch in found.stretches:
        own = [NONE] * n
        for layer, cut in zip(range(stretch.start, min(stretch.end, n)), stretch.cuts, strict=False):
            own[layer], host[layer] = (WHOLE, NONE) if cut is Cut.NOTHING else (PART, REST)
        places.append(_Place(stretch.device, "".join(own)))
    places.append(_Place("CPU", "".join(host)))
    lines: list[RenderableType] = []
    for start in range(0, n, ROW):
        lines += [f"{place.name:<8} {place.marks[start : start + ROW]}" for place in places]
        lines.append(Text(f"{'layers':<8} {start} to {min(n, start + ROW) - 1}", "dim"))
    cuts = {cut for stretch in found.stretches for cut in stretch.cuts} - {Cut.NOTHING}
    if cuts:
        kept = "experts" if cuts == {Cut.EXPERTS} else "feed-forward parts" if cuts == {Cut.FFN} else "experts or more"
        lines.append(Text(f"{WHOLE} whole layer  {PART} without its {kept}, which are {REST}", "dim"))
    return lines


def _speeds(outcome: Outcome, comparison: Comparison) -> Text:
    found, drafted = outcome.plan, outcome.drafted_seconds
    cpu, everything = comparison.cpu_only.tokens_per_second, comparison.all_on_device
    speed = (f"{found.tokens_per_second:.3g} tokens/s", "bold")
    text = Text.assemble("Predicted: ", speed, f"; on the CPU alone {cpu:.3g}")
    if everything:
        device, speed_there = everything.stretches[0].device, everything.tokens_per_second
        text.append(f"; all on {device}, were it large enough, {speed_there:.3g}")
    if drafted is not None:
        gain = (
            f"with the draft's usual help {1 / drafted:.3g}" if drafted < found.seconds else "the draft would not help"
        )
        text.append(f"; {gain}")
    return text.append(".")
