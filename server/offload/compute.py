"""How large llama.cpp's compute buffers will be: told exactly by a dry run without memory, and remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import xxhash
from msgspec import structs

from server.offload.asking import ask
from server.offload.questions import DryRun, DryRunResult
from server.offload.remembered import recall, remember

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converter.gguf_info import GGUFInfo
    from server.offload.footprint import Footprint, KvShape

LLAMA_CPP = "0.3.36"
"""The pinned llama-cpp-python: another build may need other buffers."""
KV_TOLERANCE, KV_ROUNDING = 0.005, 1 << 16
"""Share and bytes by which a dry run's figure of a KV cache, in hundredths of MiB, differs for its rounding alone."""


def header_digest(info: GGUFInfo) -> str:
    """A digest of all that a dry run depends on: the file up to its tensors' data."""
    with info.path.open("rb") as file:
        return xxhash.xxh3_128_hexdigest(file.read(info.data_start))


def dry_run(question: DryRun, digest: str) -> DryRunResult | None:
    """The buffers of a placement, from memory or from a probe; None where the probe could not tell."""
    key = xxhash.xxh3_128_hexdigest(digest.encode() + LLAMA_CPP.encode() + msgspec.json.encode(_without_path(question)))
    known = recall(f"dry-run-{key}", DryRunResult)
    if known is None:
        answer = ask(question)
        if not isinstance(answer, DryRunResult):
            return None
        known = answer
        remember(f"dry-run-{key}", known)
    return known


def kv_bytes(counted: int, told: DryRunResult | None) -> int:
    """The size of a KV cache: as counted from the header, unless a dry run tells of more or less than rounding makes.

    It does for architectures that keep an index of keys beside them, or nothing at all.
    """
    if told is None or abs(told.kv - counted) <= KV_TOLERANCE * counted + KV_ROUNDING:
        return counted
    return told.kv


def _without_path(question: DryRun) -> DryRun:
    return structs.replace(question, path="")


def estimate(model: Footprint, shape: KvShape, n_devices: int, n_ubatch: int) -> DryRunResult:
    """A generous guess of the same, from the model's dimensions: activations, attention masks, and logits."""
    activations = 4 * n_ubatch * (8 * model.n_embd + 3 * model.n_ff)
    mask = 4 * n_ubatch * shape.cells * shape.streams
    logits = 4 * n_ubatch * model.n_vocab
    sizes: Sequence[int] = [activations + mask] * n_devices
    return DryRunResult(compute=(*sizes[:-1], activations + mask + logits) if sizes else (), host_compute=logits, kv=0)
