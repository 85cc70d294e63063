"""KV state and the computation of batches."""

# pyright: basic

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as ll
import numpy as np
import numpy.typing as npt

from server.engine.cores import cpu_set
from server.engine.kernels.install import Kernels, installed
from server.engine.llama.backend import load_error
from server.engine.llama.products import TILED_FROM, Products
from server.engine.llama.threads import BoundThreads, can_bind
from server.engine.spare_memory import SHARE, SpareMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.llama.model import Model
    from server.engine.load_spec import LoadSpec, Pooling

Logits = npt.NDArray[np.float32]

GENERATED_TOGETHER = 8
"""Tokens of one batch up to which threads for generating are used; more are computed like a prompt."""
KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}  # ggml_type
POOLING: dict[Pooling, int] = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # llama_pooling_type


@dataclass(frozen=True, slots=True)
class ContextShape:
    """The sizes a context is made with.

    Attributes:
        cells: KV cells in all, in tokens.
        sequences: how many sequences have a buffer of their own; in a unified context all share the cells.
        unified: whether they do.
        batch: tokens that one `decode` may take. ubatch: tokens computed at a time.
        flash: whether attention is computed without the matrix of its scores, wherever the model lets it be.
    """

    cells: int
    sequences: int
    unified: bool
    batch: int
    ubatch: int
    flash: bool = True


class Context:
    """KV state and compute buffers for one model; decodes batches. To be used from one thread at a time."""

    def __init__(self, model: Model, spec: LoadSpec, shape: ContextShape) -> None:
        params = ll.llama_context_default_params()
        params.n_ctx = shape.cells
        params.n_batch = shape.batch
        params.n_ubatch = shape.ubatch
        params.n_seq_max = shape.sequences
        params.kv_unified = shape.unified
        if not shape.flash:
            params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.type_k = params.type_v = KV_TYPES[spec.kv_type]
        params.offload_kqv = spec.placement.offload_kv
        params.swa_full = False
        params.no_perf = True
        params.embeddings = spec.embedding
        if spec.pooling is not None:
            params.pooling_type = POOLING[spec.pooling]
        params.rope_freq_base = spec.rope_freq_base
        params.rope_freq_scale = spec.rope_freq_scale
        pointer = ll.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise load_error(f"there is no room for a context of {shape.cells} tokens beside {spec.name}")
        self.pointer = pointer
        self.shape = shape
        self.model = model
        self._apply_adapters(spec)
        # null in a model without KV state, which llama.cpp's functions accept
        self._memory: Any = ll.llama_get_memory(self.pointer)
        names: dict[int, Pooling] = {number: name for name, number in POOLING.items()}
        self.pooling: Pooling = names.get(ll.llama_pooling_type(self.pointer), "none")
        self._n_vocab = model.vocab.size
        self._batch = _Batch(shape.batch)
        self._threads = (params.n_threads, params.n_threads_batch)
        self.kernels: Kernels | None = installed() if model.on_cpu else None
        """brim's own products, where they are in use."""
        self._bound: BoundThreads | None = None
        self._products = Products(pointer)
        self._plain_up_to = 0
        self.spare_memory = SpareMemory(spec.cache_ram // SHARE)
        self._logits_at: tuple[int | None, int] = (None, 0)
        self._logits: Logits = np.empty((0, self._n_vocab), np.float32)

    def _apply_adapters(self, spec: LoadSpec) -> None:
        adapters = []
        for path, _ in spec.adapters:
            adapter = ll.llama_adapter_lora_init(self.model.pointer, path.encode())
            if not adapter:
                raise load_error(f"the adapter {path} does not fit {spec.name}")
            adapters.append(adapter)
        if adapters:
            pointers = (ctypes.c_void_p * len(adapters))(*adapters)
            scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in spec.adapters))
            ll.llama_set_adapters_lora(self.pointer, pointers, len(adapters), scales)

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[int],
        *,
        generating: bool = False,
    ) -> bool:
        """Compute one batch.

        Args:
            tokens, positions, sequences: one entry a token; positions of a sequence go on from where its state ends.
            outputs: indices into the batch whose logits are wanted, ascending.
            generating: whether it holds nothing of prompts, which may have threads of their own.

        Returns:
            Whether it was done: False means that the KV cells did not suffice, and nothing has changed.

        Raises:
            RuntimeError: llama.cpp failed in a way that leaves the context unusable.
        """
        n = len(tokens)
        batch = self._batch
        batch.tokens[:n] = tokens
        batch.positions[:n] = positions
        batch.sequences[:n] = sequences
        wanted = [0] * n
        for output in outputs:
            wanted[output] = 1
        batch.outputs[:n] = wanted
        batch.struct.n_tokens = n
        self._prepare(n, generating=generating and n <= GENERATED_TOGETHER)
        status = ll.llama_decode(self.pointer, batch.struct)
        if status < 0:
            raise RuntimeError(f"llama_decode failed with status {status}")
        return status == 0

    def decode_embeddings(
        self, embeddings: npt.NDArray[np.float32], positions: npt.NDArray[np.int32], sequence: int, *, causal: bool
    ) -> bool:
        """Compute what is given as embeddings instead of tokens; gives no logits.

        Args:
            embeddings: [tokens, n_embd].
            positions: [kinds, tokens], several kinds for M-RoPE.
            causal: whether each sees only those before it.

        Returns:
            Whether it was done: False means that the KV cells did not suffice, and nothing has changed.

        Raises:
            RuntimeError: llama.cpp failed in a way that leaves the context unusable.
        """
        n = len(embeddings)
        embeddings, positions = np.ascontiguousarray(embeddings), np.ascontiguousarray(positions)
        batch = self._batch
        batch.sequences[:n] = [sequence] * n
        batch.outputs[:n] = [0] * n
        struct = batch.of_embeddings(embeddings, positions)
        self._prepare(n, generating=False)
        if not causal:
            ll.llama_set_causal_attn(self.pointer, False)
        status = ll.llama_decode(self.pointer, struct)
        if not causal:
            ll.llama_set_causal_attn(self.pointer, True)
        if status < 0:
            raise RuntimeError(f"llama_decode failed with status {status} on embeddings")
        return status == 0

    def logits(self, rows: int) -> Logits:
        """The last batch's logits where wanted: a writable view [rows, vocabulary], valid until the next decode."""
        place = _address_of_logits(self.pointer), rows
        if place != self._logits_at:  # it seldom moves, and NumPy's own way to it takes longer than the likeliest token
            self._logits_at = place
            self._logits = _view(place[0], rows, self._n_vocab)
        return self._logits

    def embedding(self, sequence: int) -> npt.NDArray[np.float32]:
        """The pooled embedding of a sequence after a decode, n_embd_out floats, or its scores if the model ranks."""
        width = self.model.n_scores if self.pooling == "rank" else self.model.n_embd_out
        pointer = ll.llama_get_embeddings_seq(self.pointer, sequence)
        return np.ctypeslib.as_array(pointer, shape=(width,)).copy()

    def token_embeddings(self, rows: int) -> npt.NDArray[np.float32]:
        """The unpooled embeddings of the last batch: a view [rows, n_embd_out], valid until the next decode."""
        pointer = ctypes.cast(ll.llama_get_embeddings(self.pointer), ctypes.c_void_p)
        return _view(pointer.value, rows, self.model.n_embd_out)

    @property
    def has_memory(self) -> bool:
        """Whether sequences go on from batch to batch; a mere encoder forgets each."""
        return bool(self._memory)

    def drop(self, sequence: int, start: int = 0) -> bool:
        """Forget a sequence's state from position `start` on. False where the model cannot drop a part."""
        return bool(ll.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def copy(self, source: int, target: int) -> None:
        """Make an empty sequence `target` share (unified) or repeat (split) all of `source`.

        From buffer to buffer, llama.cpp itself would copy all of it, and only with the next batch: a state saved or
        restored until then would be the wrong one.

        Raises:
            RuntimeError: llama.cpp did not take the state.
        """
        if self.shape.unified:
            ll.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        elif not self.restore_state(target, self.save_state(source)):
            raise RuntimeError("llama.cpp did not take a state from one buffer into another")

    def share(self, source: int, target: int, length: int) -> None:
        """In a unified context: make `target` share the first `length` positions of `source`."""
        ll.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def clear(self) -> None:
        """Forget all sequences."""
        ll.llama_memory_clear(self._memory, False)

    def state_size(self, sequence: int) -> int:
        """Bytes of a sequence's state."""
        return ll.llama_state_seq_get_size(self.pointer, ll.llama_seq_id(sequence))

    def save_state(self, sequence: int) -> npt.NDArray[np.uint8]:
        """A copy of a sequence's state."""
        size = self.state_size(sequence)
        data = self.spare_memory.take(size)
        target = _pointer(data, ctypes.c_uint8)
        written = ll.llama_state_seq_get_data(self.pointer, target, size, ll.llama_seq_id(sequence))
        return data if written == size else data[:written].copy()

    def restore_state(self, sequence: int, data: npt.NDArray[np.uint8]) -> bool:
        """Replace a sequence's state by a saved one. False where it does not fit; the sequence is then empty."""
        source = _pointer(data, ctypes.c_uint8)
        read = ll.llama_state_seq_set_data(self.pointer, source, data.nbytes, ll.llama_seq_id(sequence))
        if read == 0:
            self.drop(sequence)
        return read > 0

    def synchronize(self) -> None:
        """Wait until all work given to the devices is done."""
        ll.llama_synchronize(self.pointer)

    def set_threads(self, decode: int, batch: int) -> None:
        """CPU threads for generating, and for prompts."""
        self._threads = (decode, batch)
        ll.llama_set_n_threads(self.pointer, decode, batch)

    @property
    def can_choose_products(self) -> bool:
        """Whether `set_plain` has an effect: where some of the model is computed by the CPU."""
        return self.model.on_cpu and self._products.can_choose

    def set_plain(self, widest: int) -> None:
        """Up to which width batches are computed by the plain products where llama.cpp would take tiled ones."""
        self._plain_up_to = widest

    def bind_threads(self) -> None:
        """Bind them to a CPU each where there is one for every CPU of this process, and some of the model for them.

        The thread that decodes is one of them, and those that it starts later inherit its CPU; see `cores.roam`.
        """
        cpus = cpu_set()
        if self.model.on_cpu and max(self._threads) == len(cpus) > 1 and can_bind(cpus):
            self._bound = BoundThreads(cpus)
            self._bound.attach(self.pointer)

    def _prepare(self, n: int, *, generating: bool) -> None:
        """Choose threads and products for a batch of `n` tokens."""
        decode, prompts = self._threads
        if decode != prompts:  # llama.cpp takes everything but a single token for a prompt
            ll.llama_set_n_threads(self.pointer, decode, decode if generating else prompts)
        self._products.use(plain=TILED_FROM <= n <= self._plain_up_to)

    def close(self) -> None:
        """Free the context."""
        ll.llama_free(self.pointer)
        if self._bound:
            self._bound.close()


_address_of_logits = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("llama_get_logits", ll._lib))
"""llama_get_logits, whose pointer llama_cpp would make an object of: that would take longer than the call."""


def _view(address: int | None, rows: int, width: int) -> npt.NDArray[np.float32]:
    """Floats of llama.cpp's as [rows, width]. NumPy's own way keeps a type for ever for each number of rows."""
    data = (ctypes.c_float * (rows * width)).from_address(address or 0)
    return np.frombuffer(memoryview(data), np.float32).reshape(rows, width)


class _Batch:
    """A llama_batch over arrays that slices fill: those of ctypes, which for a few tokens take half of NumPy's time."""

    def __init__(self, capacity: int) -> None:
        self.tokens = (ctypes.c_int32 * capacity)()
        self.positions = (ctypes.c_int32 * capacity)()
        self.sequences = (ctypes.c_int32 * capacity)()
        self.outputs = (ctypes.c_int8 * capacity)()
        self._sequence_counts = (ctypes.c_int32 * capacity)(*([1] * capacity))
        # llama.cpp wants a pointer per token to its list of sequences: here each list is one element of `sequences`
        first, step = ctypes.addressof(self.sequences), ctypes.sizeof(ctypes.c_int32)
        self._sequence_lists = (ctypes.c_void_p * capacity)(*range(first, first + step * capacity, step))
        self.struct = ll.llama_batch(
            token=_as(ctypes.c_int32, self.tokens),
            pos=_as(ctypes.c_int32, self.positions),
            n_seq_id=_as(ctypes.c_int32, self._sequence_counts),
            seq_id=_as(ctypes.POINTER(ctypes.c_int32), self._sequence_lists),
            logits=_as(ctypes.c_int8, self.outputs),
        )

    def of_embeddings(self, embeddings: npt.NDArray[np.float32], positions: npt.NDArray[np.int32]) -> ll.llama_batch:
        """The batch with these arrays, which must outlive it, in place of tokens and positions."""
        return ll.llama_batch(
            n_tokens=len(embeddings),
            embd=_pointer(embeddings, ctypes.c_float),
            pos=_pointer(positions, ctypes.c_int32),
            n_seq_id=self.struct.n_seq_id,
            seq_id=self.struct.seq_id,
            logits=self.struct.logits,
        )


def _as(kind: type, array: ctypes.Array[Any]) -> Any:
    return ctypes.cast(array, ctypes.POINTER(kind))


def _pointer(array: npt.NDArray[Any], kind: type) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
