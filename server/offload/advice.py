"""What limits a placement, and what would help: a smaller context, KV type or quantization, with the figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from server.offload.planner import Plan, Problem, plan
from server.offload.solving import SMALLEST_CONTEXT, Outcome
from server.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

BITS_PER_WEIGHT = {
    "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.68, "Q4_K_M": 4.85, "IQ4_XS": 4.32,
    "Q3_K_M": 3.91, "IQ3_XXS": 3.20, "Q2_K": 2.96, "IQ2_XXS": 2.19,
}  # fmt: skip
"""What quantizing a whole model to a type comes to, from large to small."""
UNBOUNDED = 1 << 60


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same model elsewhere: on the CPU alone, and wholly on the fastest device were it large enough."""

    cpu_only: Plan
    all_on_device: Plan | None


def compare(outcome: Outcome) -> Comparison:
    """Predict the two ends between which a placement lies."""
    problem = outcome.plan.problem
    everything = None
    if problem.devices:
        fastest = max(problem.devices, key=lambda budget: budget.speed.bandwidth)
        everything = plan(replace(problem, devices=(replace(fastest, capacity=UNBOUNDED),), first=0, earliest=0))
    return Comparison(plan(replace(problem, devices=(), first=None, earliest=0)), everything)


def advice(outcome: Outcome) -> str:
    """One sentence on what limits the placement and what would help."""
    found, problem = outcome.plan, outcome.plan.problem
    on_host, room = outcome.host_fixed, outcome.host_room
    if on_host > room:  # weights are pages of a file, which may come and go, but these may not
        return (
            f"It does not fit: KV cache and compute buffers take {format_size(on_host)} of the host's memory, where "
            f"{format_size(room)} are free; a smaller context would help."
        )
    if not problem.devices:
        return f"{outcome.machine.note or 'There is no GPU'}: memory bandwidth of the CPU limits it; a GPU would help."
    if found.whole:
        spare = room_for_model(problem) - sum(stretch.total for stretch in found.stretches)
        return (
            f"Everything is on {_names(found)}, whose memory bandwidth limits it, with {format_size(spare)} to spare."
        )
    need, have = needed(problem), room_for_model(problem)
    if need <= have:
        return "It would fit wholly, but other choices limit it: the layers asked for, what failed before, or speed."
    partly = found.layers_on_device - found.whole_layers
    limit = (
        f"Memory limits it: {found.whole_layers} of {len(problem.model.layers)} layers fit whole"
        f"{f' and {partly} in part' if partly else ''}, since wholly offloaded it takes {format_size(need)} "
        f"and there are {format_size(have)}{_beside(outcome)}"
    )
    total = need + sum(device.total for device in outcome.machine.devices) - have
    more = f"a GPU with {format_size(total)} would hold all of it"
    return f"{limit}; {next(remedies(outcome, have), 'no quantization makes it fit')}; {more}."


def remedies(outcome: Outcome, have: int) -> Iterator[str]:
    """What would make the model fit wholly, the gentlest first."""
    problem, wish = outcome.plan.problem, outcome.wish
    model = problem.model
    if wish.kv_type in ("f16", "f32"):
        shape = replace(problem.kv, type="q8_0")
        need = needed(replace(problem, kv=shape))
        if need <= have:
            yield f"KV cache in q8_0 instead of {wish.kv_type} would make it fit ({format_size(need)})"
    context = wish.context // 2
    while context >= SMALLEST_CONTEXT:
        shape = replace(wish, context=context).shape(model, outcome.n_ubatch)
        need = needed(replace(problem, kv=shape))
        if need <= have:
            yield f"a context of {context:,} tokens instead of {wish.context:,} would make it fit ({format_size(need)})"
            break
        context //= 2
    yield from _quantized(problem, have, "")
    if wish.context > SMALLEST_CONTEXT or wish.kv_type != "q8_0":
        smallest = replace(wish, context=SMALLEST_CONTEXT, kv_type="q8_0").shape(model, outcome.n_ubatch)
        yield from _quantized(
            replace(problem, kv=smallest), have, f" with a context of {SMALLEST_CONTEXT:,} tokens and KV cache in q8_0"
        )


def _quantized(problem: Problem, have: int, circumstances: str) -> Iterator[str]:
    """The largest quantizations with which the model fits wholly."""
    model = problem.model
    weights = sum(layer.weights for layer in model.layers) + model.output
    other = needed(problem) - weights
    for name, bits in BITS_PER_WEIGHT.items():
        smaller = int(model.parameters * bits / 8)
        if smaller < weights and smaller + other <= have:
            yield f"quantized to {name}{circumstances} it would fit (about {format_size(smaller + other)})"


def room_for_model(problem: Problem) -> int:
    """Device bytes that there are for the model, beside its companions."""
    return sum(budget.capacity for budget in problem.devices)


def needed(problem: Problem) -> int:
    """Device bytes of the model wholly on one device."""
    model = problem.model
    weights = sum(layer.weights for layer in model.layers) + model.output
    return weights + model.kv_bytes(problem.kv) + max(budget.compute_output for budget in problem.devices)


def _beside(outcome: Outcome) -> str:
    """What companions take of the devices."""
    there = [guest for guest in outcome.guests if guest.on_device.total]
    return "".join(f" beside the {guest.role}'s {format_size(guest.on_device.total)}" for guest in there)


def _names(found: Plan) -> str:
    return " and ".join(stretch.device for stretch in found.stretches)
