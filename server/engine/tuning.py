"""What suits a model on this machine, and what it costs: threads, products, time of steps, speed of prefill.

Measured once when a model is first loaded, in about a second for a small one, and remembered for model, placement and
machine, unless other programs took the CPUs meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import xxhash

from server.engine.cores import cpu_name, usable_cores, waited_for_cpus
from server.engine.llama.context import GENERATED_TOGETHER
from server.engine.llama.products import TILED_FROM
from server.engine.state_file import remember

if TYPE_CHECKING:
    from server.engine.llama.context import Context
    from server.engine.load_spec import LoadSpec

_VERSION = 3
"""What is remembered was measured in this way."""
WIDTHS = (1, 2, 4, 8, 16, 32)
PROMPT = 64
_PLAIN_WIDTHS = (TILED_FROM, 12, 16, 24)
_TRIES = 3
_LONG = 0.5
"""Seconds after which a step is not tried again."""
_PATIENCE = 3.0
"""Seconds after which no further thread count is tried."""
_SERVING = 0.0003
"""Seconds of a core that server and client take for each token that is generated."""
_CLEARLY = 0.97
"""The share of the usual time that something else must not exceed to be taken instead: a measurement is short."""
_DISTURBED = 0.1
"""Share of the time that threads may have waited for CPUs which other programs had."""


class Tuning(msgspec.Struct, frozen=True):
    """Measurements of one model on one machine.

    Attributes:
        threads: for generating. threads_batch: for prompts.
        plain_up_to: the widest batch that plain products compute faster than tiled ones, 0 if none.
        step_seconds: duration of a decoding step by its number of tokens.
        prefill_rate: prompt tokens per second.
    """

    threads: int
    threads_batch: int
    plain_up_to: int
    step_seconds: dict[int, float]
    prefill_rate: float


def tune(context: Context, spec: LoadSpec) -> Tuning:
    """Measure, or recall, what suits a context, and set its threads and products."""
    cores = usable_cores()
    path = Path(spec.state_dir) / f"tuning-{_key(context, spec, cores)}.json" if spec.state_dir else None
    tuning = _recall(path) if path else None
    if tuning is None:
        begun, waited = time.monotonic(), waited_for_cpus()
        tuning = _measure(context, spec, cores)
        disturbed = waited_for_cpus() - waited > _DISTURBED * (time.monotonic() - begun)
        if path and not disturbed:
            remember(path, msgspec.json.encode(tuning))
    context.set_threads(tuning.threads, tuning.threads_batch)
    context.set_plain(tuning.plain_up_to)
    return tuning


def _measure(context: Context, spec: LoadSpec, cores: int) -> Tuning:
    counts = (
        [spec.threads] if spec.threads else sorted({cores, max(1, cores * 3 // 4), max(1, cores // 2)}, reverse=True)
    )
    prompt = min(PROMPT, context.shape.batch, context.shape.cells // context.shape.sequences)
    context.set_threads(counts[0], counts[0])
    _seconds(context, prompt)  # reads the weights into memory
    threads = _fastest(counts, context, (1, min(GENERATED_TOGETHER, prompt)), _SERVING)
    threads_batch = _fastest(counts, context, (prompt,))
    context.set_threads(threads, threads_batch)
    plain_up_to = _widest_plain(context, prompt) if context.can_choose_products else 0
    context.set_plain(plain_up_to)
    widths = [width for width in WIDTHS if width <= prompt]
    steps = {width: _shortest(context, width, generating=True) for width in widths}
    return Tuning(threads, threads_batch, plain_up_to, steps, prompt / _seconds(context, prompt))


def _fastest(counts: list[int], context: Context, widths: tuple[int, ...], beside: float = 0.0) -> int:
    """The thread count with the shortest steps; a smaller one must win clearly, since the measurement is short.

    Args:
        beside: seconds of other work that come with each token, and delay it where there is a thread for every core.
    """
    times: dict[int, float] = {}
    begun = time.monotonic()
    for count in counts:
        context.set_threads(count, count)
        delay = beside if count == counts[0] else 0.0
        times[count] = sum(_shortest(context, width) / width + delay for width in widths)
        if time.monotonic() - begun > _PATIENCE:
            break
    return min(times, key=lambda count: times[count] * (1.0 if count == counts[0] else 1.05))


def _widest_plain(context: Context, most: int) -> int:
    """The widest batch of no more than `most` tokens up to which plain products are clearly faster."""
    widest = 0
    for width in _PLAIN_WIDTHS:
        if width > most or not _faster_plain(context, width):
            break
        widest = width
    return widest


def _faster_plain(context: Context, width: int) -> bool:
    plain: list[float] = []
    tiled: list[float] = []
    while len(plain) < _TRIES and sum(plain) < _LONG:
        for times, plain_up_to in ((plain, width), (tiled, 0)):
            context.set_plain(plain_up_to)
            times.append(_seconds(context, width))
    return min(plain) < _CLEARLY * min(tiled)


def _shortest(context: Context, width: int, *, generating: bool = False) -> float:
    """The shortest of three steps, or of fewer where they take long."""
    times = [_seconds(context, width, generating=generating)]
    while len(times) < _TRIES and sum(times) < _LONG:
        times.append(_seconds(context, width, generating=generating))
    return min(times)


def _seconds(context: Context, width: int, *, generating: bool = False) -> float:
    context.drop(0)
    begun = time.monotonic()
    outputs = range(width) if generating else [width - 1]
    context.decode([0] * width, range(width), [0] * width, outputs, generating=generating)
    context.synchronize()
    seconds = time.monotonic() - begun
    context.drop(0)
    return seconds


def _key(context: Context, spec: LoadSpec, cores: int) -> str:
    facts = (_VERSION, spec.digest, msgspec.to_builtins(spec.placement), spec.kv_type, spec.threads, cores, cpu_name())
    shape = (context.shape.unified, context.shape.ubatch, context.shape.flash, context.kernels and context.kernels.key)
    return xxhash.xxh3_64_hexdigest(repr((facts, shape)).encode())


def _recall(path: Path) -> Tuning | None:
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Tuning)
    return None
