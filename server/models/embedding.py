"""What a model can be asked for: text, embeddings or ranks; and how any model is loaded to give embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import structs

from server.engine.load_spec import LoadSpec, Pooling
from server.errors import RequestError
from server.offload import Choice, Wish, choose
from server.offload.placing import read_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converter.gguf_info import GGUFInfo
    from server.models.resolve import ModelSource
    from server.settings import Settings

Purpose = Literal["text", "embedding", "ranking", "vocabulary"]
"""What is wanted of a model. Any model has a vocabulary."""

POOLING: dict[int, Pooling] = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""llama.cpp's `pooling_type` numbers."""
LONGEST_IN_ONE_GO = 2048
LONGEST_IN_PARTS = 8192
"""The longest input unless the user sets a context: its memory is taken at the start, and few inputs are longer."""
BATCH = 512


def pooling_of(info: GGUFInfo) -> Pooling | None:
    """How a model made for embeddings sums up a text; None for a model that generates text.

    Such a model's file has a pooling type, or says that its attention is not causal.
    """
    pooling = POOLING.get(info.get(f"{info.architecture}.pooling_type", 0), "none")
    causal = info.get(f"{info.architecture}.attention.causal", True)
    return pooling if pooling != "none" or not causal else None


def require(source: ModelSource, purpose: Purpose) -> None:
    """Refuse what a model is not made for. Any model that is not for ranking can give embeddings.

    Raises:
        RequestError: 400.
    """
    name, code = source.name, "model_not_supported"
    if purpose == "ranking" and source.pooling != "rank":
        raise RequestError(f"{name} cannot rank: that takes a reranker model", code=code, param="model")
    if purpose == "embedding" and source.pooling == "rank":
        raise RequestError(f"{name} ranks documents and gives no embeddings: use /v1/rerank", code=code, param="model")
    if purpose == "text" and source.pooling is not None:
        what = "ranks documents: use /v1/rerank" if source.pooling == "rank" else "gives embeddings: use /v1/embeddings"
        raise RequestError(f"{name} generates no text; it {what}", code=code, param="model")


def plan_embedder(source: ModelSource, settings: Settings, held: Mapping[str, int]) -> tuple[LoadSpec, Choice]:
    """All that a worker is told that gives embeddings.

    Where every token sees every other, an input must be computed in one go: the batch is then as long as the longest.

    Args:
        held: bytes that other models hold, by llama.cpp's name of the device's memory.

    Raises:
        BrimError: the file cannot be read.
    """
    info = read_model(source.path)
    family = info.architecture
    in_one_go = source.pooling in ("mean", "cls", "rank") or not info.get(f"{family}.attention.causal", True)
    own = int(info.get(f"{family}.context_length", LONGEST_IN_ONE_GO))
    context = min(own, settings.ctx or (LONGEST_IN_ONE_GO if in_one_go else LONGEST_IN_PARTS))
    batch = context if in_one_go else min(BATCH, context)
    wish = Wish(context=context, gpu_layers=settings.gpu_layers, vram_budget=settings.vram_budget, held=held)
    choice = choose(source.path, wish, rpc=settings.rpc)
    spec = LoadSpec(
        path=str(source.path),
        name=source.name if source.pooling else companion_name(source.name),
        digest=source.digest,
        placement=structs.replace(choice.placement, n_batch=batch, n_ubatch=batch),
        context=context,
        rpc=choice.rpc,
        threads=settings.threads,
        adapters=source.adapters,
        kernels=settings.kernels and choice.kernels,
        reorder=choice.reorder,
        state_dir=str(settings.state_dir),
        embedding=True,
    )
    return spec, choice


def companion_name(name: str) -> str:
    """What the second engine of a model that generates text is called, which gives its embeddings."""
    return f"{name} (embeddings)"
