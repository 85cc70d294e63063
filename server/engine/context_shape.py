"""How a generating model's context is laid out: one pool of KV cells or a buffer for each sequence, and how it attends.

Each was chosen by measurement; docs/engine.md has the figures.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import llama_cpp
import xxhash

from converter.gguf_format import align
from server.engine.kernels.install import installed
from server.engine.llama.context import ContextShape
from server.engine.load_spec import context_sequences

if TYPE_CHECKING:
    from server.engine.llama.model import Model
    from server.engine.load_spec import LoadSpec

CELL_PADDING = 256
LONG_CONTEXT = 4096
"""Tokens of a request beyond which plain attention is chosen: it is slower up to some 500, and faster from 1,500 on."""
FLASH_PIECE = 64
"""Tokens of a prompt that flash attention on a CPU computes as fast as more of them (GGML_FA_TILE_Q)."""
PLAIN_PIECE = 32
"""The same of plain attention; only the products with weights are slower by a tenth than with 64, less so with 48."""
PLAIN_UNIT = 16
"""Larger pieces have multiples of it with plain attention, and of `FLASH_PIECE` with the other."""
CPU_UBATCH = 256
"""Tokens of a prompt computed at a time on a CPU: some lengths take a few percent less time than with 512."""
PLAIN_UBATCH = 64
"""Tokens computed at a time with plain attention, whose scores are kept for all of them; more are no faster."""
SMALL_SCORES = 64 << 20
"""Bytes of scores that need no plan."""


def context_shape(spec: LoadSpec, model: Model, context: int) -> ContextShape:
    """The shape of the context that serves requests of `context` tokens each.

    Unless told otherwise, each of the parallel sequences has a buffer of its own where that was measured to be faster
    and takes no more memory: on a CPU with room for all.
    """
    separate = align(context, CELL_PADDING) * spec.parallel
    pool = align(max(context, spec.kv_cells), CELL_PADDING)
    split = spec.kv_unified is False
    if spec.kv_unified is None and spec.placement.n_gpu_layers == 0 and model.truncatable:
        split = separate <= pool
    unified = spec.parallel == 1 or not split
    shape = ContextShape(
        cells=pool if unified else separate,
        sequences=context_sequences(spec.parallel, unified=unified, truncatable=model.truncatable),
        unified=unified,
        batch=max(spec.placement.n_batch, spec.parallel),
        ubatch=spec.placement.n_ubatch,
    )
    if not _small_batches_pay(spec, model):
        return shape
    if _plain_attention_pays(spec, model, shape):
        return replace(shape, flash=False, ubatch=PLAIN_UBATCH)
    return replace(shape, ubatch=min(shape.ubatch, CPU_UBATCH))


def _small_batches_pay(spec: LoadSpec, model: Model) -> bool:
    """Whether a prompt is computed no slower in batches smaller than planned for: where all of it is on the CPU.

    Pictures may need larger ones. So do experts, of which each gets few of a small batch's tokens, and weights that
    are read from disk each time.
    """
    return spec.placement.n_gpu_layers == 0 and not spec.projector_path and model.dense and spec.weights_stay


def _plain_attention_pays(spec: LoadSpec, model: Model, shape: ContextShape) -> bool:
    """Whether attention is faster with the matrix of its scores, and that fits into what was planned for.

    llama.cpp's flash attention on a CPU takes tokens one by one where they are fewer than 64, as generations and the
    pieces of prompts beside them are. Plain attention computes all cells of a buffer, so it is none for a shared pool;
    it cannot read quantized values, and would copy those of MLA at every step. The compute buffer holds either the
    scores or the logits of a batch, whichever are larger, and has been planned for the logits of a larger batch;
    beside it there is a copy of the scores in F16.
    """
    if shape.unified or spec.kv_type not in ("f16", "f32"):
        return False
    if not model.truncatable or model.latent_attention or not model.n_heads:
        return False
    cells = shape.cells // shape.sequences
    score_bytes, logit_bytes = 6 * PLAIN_UBATCH * cells * model.n_heads, 4 * shape.ubatch * model.vocab.size
    return cells > LONG_CONTEXT and score_bytes <= max(logit_bytes, SMALL_SCORES)


def state_key(spec: LoadSpec, shape: ContextShape, model: Model) -> str:
    """Digest of everything that KV state depends on.

    llama.cpp's form of it tells how many buffers there are; without flash attention it holds values transposed. Where
    a model was trained on short contexts first (LongRoPE), keys are turned by other angles in a longer one.
    """
    trained = model.metadata(f"{model.architecture}.rope.scaling.original_context_length")
    one = shape.cells if shape.unified else shape.cells // shape.sequences
    facts = (
        spec.digest,
        spec.adapters,
        kernels.key if (kernels := installed()) else None,
        spec.kv_type,
        1 if shape.unified else shape.sequences,
        shape.flash,
        (spec.rope_freq_base, spec.rope_freq_scale),
        trained is not None and one > int(trained),
        llama_cpp.__version__,
        ctypes.sizeof(ctypes.c_void_p),
        sys.byteorder,
    )
    return xxhash.xxh3_128_hexdigest(repr(facts).encode())
