"""A plan in llama.cpp's terms: counts of layers, weights of devices, regular expressions over tensor names.

Sources: llama-model.cpp, load_tensors (which layer goes to which device), and llama-model-loader.cpp (the first pattern
that matches a tensor's name decides its buffer).
"""

from __future__ import annotations

from server.engine.load_spec import Placement
from server.offload.planner import Cut, Plan
from server.sizes import format_size

_PARTS = {
    Cut.EXPERTS: r"ffn_(gate|up|down|gate_up)_(ch)?exps",
    Cut.FFN: r"ffn_(gate|up|down|gate_up)(_(ch)?exps|_shexp)?\.",
}


def encode(found: Plan, *, n_batch: int, n_ubatch: int, why_none: str = "") -> Placement:
    """The placement that makes llama.cpp do what a plan says."""
    return Placement(
        devices=tuple(stretch.device for stretch in found.stretches),
        n_gpu_layers=found.n_gpu_layers,
        # with the numbers of items as weights, llama.cpp's split points fall exactly between the stretches
        tensor_split=tuple(float(stretch.end - stretch.start) for stretch in found.stretches),
        tensor_overrides=overrides(found),
        offload_kv=found.offload_kv,
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        summary=summary(found, why_none),
    )


def overrides(found: Plan) -> tuple[tuple[str, str], ...]:
    """One pattern for each kind of cut: the tensors of the layers that are cut so stay on the CPU."""
    pairs: list[tuple[str, str]] = []
    for cut, part in _PARTS.items():
        layers = [s.start + i for s in found.stretches for i, this in enumerate(s.cuts) if this is cut]
        if layers:
            pairs.append((rf"^blk\.({'|'.join(map(str, layers))})\.{part}", "CPU"))
    return tuple(pairs)


def summary(found: Plan, why_none: str = "") -> str:
    """One line for the user: what is where, and how fast it should be."""
    n_layers = len(found.problem.model.layers)
    rate = found.tokens_per_second
    speed = f"about {rate:,.0f} tokens/s predicted" if rate >= 100 else f"about {rate:.3g} tokens/s predicted"
    if not found.stretches:
        return f"{why_none or 'nothing fits beside the CPU, or would be faster there'}: all layers on the CPU; {speed}"
    places = ", ".join(
        f"{min(s.end, n_layers) - s.start} of {n_layers} layers on {s.device} ({format_size(s.total)})"
        for s in found.stretches
    )
    remarks = [remark for remark in (_left_behind(found), _host(found)) if remark]
    return "; ".join([places + ("" if not remarks else f" ({', '.join(remarks)})"), speed])


def _left_behind(found: Plan) -> str:
    cuts = [cut for stretch in found.stretches for cut in stretch.cuts if cut]
    names = {Cut.EXPERTS: "experts", Cut.FFN: "feed-forward parts"}
    return ", ".join(f"{names[cut]} of {cuts.count(cut)} of them on the CPU" for cut in names if cut in cuts)


def _host(found: Plan) -> str:
    left = len(found.problem.model.layers) - found.layers_on_device
    return ", ".join([f"{left} on the CPU"] * bool(left) + ["KV cache on the CPU"] * (not found.offload_kv))
