"""One model on every card of the catalogue: how much of it fits, and how much faster than the CPU alone it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rich.table import Table

from server.offload.calibration import speeds_of
from server.offload.catalogue import CARDS
from server.offload.devices import Machine
from server.offload.planner import plan
from server.offload.solving import solve
from server.sizes import format_size

if TYPE_CHECKING:
    from converter.gguf_info import GGUFInfo
    from server.offload.host import HostMemory
    from server.offload.wish import Wish


@dataclass(frozen=True, slots=True)
class CardRow:
    """What one card makes of a model. Memory in bytes, bandwidth in bytes a second; `share` counts whole layers."""

    gpu: str
    memory_bytes: int
    bandwidth: float
    layers_total: int
    layers_on_gpu: int
    layers_partly_on_gpu: int
    share: float
    predicted_tokens_per_second: float
    speedup: float

    def as_dict(self) -> dict[str, object]:
        """The row for JSON."""
        return asdict(self)


def card_rows(info: GGUFInfo, wish: Wish, host: HostMemory) -> list[CardRow]:
    """Plan a model for every card of the catalogue, in this machine."""
    rows: list[CardRow] = []
    cpu_only: float | None = None
    for card in CARDS:
        machine = Machine(host, (card.device(),))
        outcome = solve(info, machine, wish, speeds_of(machine), verify=False)
        found = outcome.plan
        cpu_only = cpu_only or plan(replace(found.problem, devices=())).tokens_per_second
        whole = found.whole_layers
        total = len(found.problem.model.layers)
        rows.append(
            CardRow(
                gpu=card.name,
                memory_bytes=machine.devices[0].total,
                bandwidth=machine.devices[0].bandwidth,
                layers_total=total,
                layers_on_gpu=whole,
                layers_partly_on_gpu=found.layers_on_device - whole,
                share=whole / total,
                predicted_tokens_per_second=found.tokens_per_second,
                speedup=found.tokens_per_second / cpu_only,
            )
        )
    return rows


def card_table(rows: list[CardRow]) -> Table:
    """The rows for the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("card")
    for column in ("memory", "GB/s", "layers on it", "share", "tokens/s", "against CPU only"):
        table.add_column(column, justify="right")
    for row in rows:
        partly = f" + {row.layers_partly_on_gpu} in part" if row.layers_partly_on_gpu else ""
        table.add_row(
            row.gpu,
            format_size(row.memory_bytes),
            f"{row.bandwidth / 1e9:.0f}",
            f"{row.layers_on_gpu} of {row.layers_total}{partly}",
            f"{row.share:.0%}",
            f"{row.predicted_tokens_per_second:.3g}",
            f"{row.speedup:.1f}x",
        )
    return table
