"""Draws a plan into a PNG file: what fills each device. Needs matplotlib (the extra `plots`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

# pyright: basic
from server.errors import BrimError
from server.offload.report import stretch_on

if TYPE_CHECKING:
    from pathlib import Path

    from server.offload.solving import Outcome

PARTS = (
    ("weights", "#4c78a8"), ("KV cache", "#72b7b2"), ("compute buffers", "#b279a2"), ("beside it", "#eeca3b"),
    ("free", "#e4e4e4"),
)  # fmt: skip
GIB = 2**30


def draw(name: str, outcome: Outcome, path: Path) -> None:
    """Write the picture.

    Raises:
        BrimError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BrimError("--plot needs matplotlib; install it with: pip install 'brim[plots]'") from error
    found, host = outcome.plan, outcome.machine.host
    beside = sum(guest.on_host.total for guest in outcome.guests)
    rows = [("CPU", (found.host_weights, found.host_kv, outcome.host_compute, beside), host.available)]
    for device in reversed(outcome.machine.devices):
        stretch = stretch_on(found, device.name)
        weights, kv, compute = (stretch.weights, stretch.kv, stretch.compute) if stretch else (0, 0, 0)
        sizes = (weights, kv, compute, outcome.guests_on(device.name))
        rows.append((f"{device.name}\n{device.description}", sizes, outcome.budgets[device.name]))
    figure = Figure(figsize=(9, 1.6 + 0.7 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for row, (_, sizes, budget) in enumerate(rows):
        left = 0.0
        for size, (_, colour) in zip((*sizes, max(0, budget - sum(sizes))), PARTS, strict=True):
            axes.barh(row, size / GIB, left=left, color=colour)
            left += size / GIB
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.set_xlabel("GiB")
    total = len(found.problem.model.layers)
    axes.set_title(f"{name}: {found.whole_layers} of {total} layers offloaded, {found.tokens_per_second:.3g} tokens/s")
    for label, colour in PARTS:
        axes.barh(0, 0, color=colour, label=label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=len(PARTS), frameon=False)
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise BrimError(f"{path} cannot be written: {error.strerror}") from error
