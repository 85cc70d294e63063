"""llama.cpp as three objects: a `Model`, its `Vocab` and a `Context` that decodes batches and holds KV state.

The engine's only module that calls llama_cpp. llama.cpp ends the process where an assertion fails, so callers keep
positions consecutive and never copy part of a sequence between separate KV buffers.
"""

# pyright: basic

from __future__ import annotations

import ctypes
import re
import socket
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import llama_cpp.llama_cpp as ll
import numpy as np
import numpy.typing as npt
from llama_cpp._ggml import libggml

from server.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from server.engine.messages import LoadSpec, Pooling

Logits = npt.NDArray[np.float32]

KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}  # ggml_type
POOLING: dict[Pooling, int] = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # llama_pooling_type
_SPECIAL = ll.LLAMA_TOKEN_ATTR_CONTROL | ll.LLAMA_TOKEN_ATTR_USER_DEFINED
_CONNECT_SECONDS = 5.0
_BUFFER_SIZE = re.compile(r"(\S+)\s+(?:model|KV|RS|compute|output|LoRA) buffer size =\s*([\d.]+) MiB")
_WARNING, _ERROR, _CONTINUATION = 3, 4, 5  # ggml_log_level


class _Log:
    """Catches what llama.cpp prints: warnings go to stderr, buffer sizes are added up for each device."""

    def __init__(self) -> None:
        self.buffers: dict[str, float] = defaultdict(float)
        self.errors: list[str] = []
        self._level = 0
        self.callback = ll.llama_log_callback(self._receive)
        ll.llama_log_set(self.callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace")
        self._level = self._level if level == _CONTINUATION else level
        if found := _BUFFER_SIZE.search(line):
            self.buffers[found[1]] += float(found[2]) * 2**20
        if self._level == _ERROR:
            self.errors.append(line.strip())
        if self._level in (_WARNING, _ERROR):
            sys.stderr.write(line)


_log: _Log | None = None


def start_backend() -> None:
    """Initialise llama.cpp once in this process and take over its log."""
    global _log  # noqa: PLW0603 - llama.cpp's log is the process's own
    if _log is None:
        _log = _Log()
        ll.llama_backend_init()


def add_rpc_devices(endpoints: Sequence[str]) -> None:
    """Register the devices of RPC workers (HOST:PORT): in this order they are then called RPC0, RPC1 and so on.

    Raises:
        LoadError: nothing answers at an endpoint, or this build of llama.cpp cannot reach other machines.
    """
    for endpoint in endpoints:
        if not hasattr(libggml, "ggml_backend_rpc_add_server"):
            raise LoadError("this build of llama.cpp has no RPC; build it with GGML_RPC=ON")
        libggml.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
        libggml.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
        libggml.ggml_backend_register.restype = None
        libggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
        host, _, port = endpoint.rpartition(":")
        try:  # llama.cpp would end the process
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise LoadError(f"no RPC worker answers at {endpoint}; start one there with `brim rpc-worker`") from error
        registry = libggml.ggml_backend_rpc_add_server(endpoint.encode())
        if not registry:
            raise LoadError(f"the RPC worker at {endpoint} offers no devices")
        libggml.ggml_backend_register(registry)


def _device_list(names: Sequence[str]) -> ctypes.Array[ctypes.c_void_p]:
    libggml.ggml_backend_dev_by_name.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_by_name.argtypes = [ctypes.c_char_p]
    devices = []
    for name in names:
        device = libggml.ggml_backend_dev_by_name(name.encode())
        if not device:
            raise LoadError(f"there is no device {name}; `brim plan` lists the devices of this machine")
        devices.append(device)
    return (ctypes.c_void_p * (len(devices) + 1))(*devices, None)


class _TensorOverride(ctypes.Structure):
    """llama_model_tensor_buft_override in llama.h."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))


def _override_list(overrides: Sequence[tuple[str, str]]) -> ctypes.Array[_TensorOverride]:
    libggml.ggml_backend_dev_buffer_type.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_buffer_type.argtypes = [ctypes.c_void_p]
    array = (_TensorOverride * (len(overrides) + 1))()
    for i, (pattern, device) in enumerate(overrides):
        array[i].pattern = pattern.encode()
        array[i].buft = libggml.ggml_backend_dev_buffer_type(_device_list([device])[0])
    return array


class Vocab:
    """A model's vocabulary: text to token ids and back. Safe to use from several threads."""

    def __init__(self, pointer: ll.llama_vocab_p) -> None:
        self._pointer = pointer
        self.size: int = ll.llama_vocab_n_tokens(pointer)
        self.add_bos = bool(ll.llama_vocab_get_add_bos(pointer))
        self.add_eos = bool(ll.llama_vocab_get_add_eos(pointer))
        self.add_sep = bool(ll.llama_vocab_get_add_sep(pointer))
        self.bos = cast("int", ll.llama_vocab_bos(pointer))
        self.eos = cast("int", ll.llama_vocab_eos(pointer))
        self.eot = cast("int", ll.llama_vocab_eot(pointer))
        self.sep = cast("int", ll.llama_vocab_sep(pointer))
        self.end_tokens = frozenset(t for t in range(self.size) if ll.llama_vocab_is_eog(pointer, t))
        self.special_tokens = {
            self.text(t): t for t in range(self.size) if ll.llama_vocab_get_attr(pointer, t) & _SPECIAL
        }
        """Control and user-defined tokens by their text."""
        self.control_tokens = frozenset(t for t in range(self.size) if ll.llama_vocab_is_control(pointer, t))
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text; with `add_special` the tokenizer's own BOS, never twice."""
        data = text.encode("utf-8", "replace")
        capacity = len(data) + 8
        buffer = (ctypes.c_int32 * capacity)()
        n = ll.llama_tokenize(self._pointer, data, len(data), buffer, capacity, add_special, parse_special)
        if n < 0:
            buffer = (ctypes.c_int32 * -n)()
            n = ll.llama_tokenize(self._pointer, data, len(data), buffer, -n, add_special, parse_special)
        tokens = buffer[:n]
        twice = add_special and self.add_bos and n > 1 and tokens[0] == tokens[1] == self.bos
        return tokens[1:] if twice else tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for; a control token has none unless `special`."""
        if not special and (known := self._pieces.get(token)) is not None:
            return known
        buffer = ctypes.create_string_buffer(256)
        n = ll.llama_token_to_piece(self._pointer, token, buffer, len(buffer), 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = ll.llama_token_to_piece(self._pointer, token, buffer, len(buffer), 0, special)
        piece = buffer.raw[:n]
        if not special:
            self._pieces[token] = piece
        return piece

    def pieces(self) -> list[bytes]:
        """The bytes that each token of the vocabulary stands for, those of control tokens too."""
        return [self.piece(token, special=token in self.control_tokens) for token in range(self.size)]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def text(self, token: int) -> str:
        """How the vocabulary spells a token; empty for the null token (-1)."""
        return "" if token < 0 else ll.llama_vocab_get_text(self._pointer, token).decode("utf-8", "replace")

    def fim_tokens(self) -> dict[str, str]:
        """The fill-in-the-middle markers that the vocabulary has."""
        tokens: dict[str, Any] = {
            "prefix": ll.llama_vocab_fim_pre(self._pointer),
            "suffix": ll.llama_vocab_fim_suf(self._pointer),
            "middle": ll.llama_vocab_fim_mid(self._pointer),
            "repository": ll.llama_vocab_fim_rep(self._pointer),
            "file": ll.llama_vocab_fim_sep(self._pointer),
        }
        return {name: self.text(token) for name, token in tokens.items() if token >= 0}


class Model:
    """Weights loaded from a GGUF file, on the devices of a placement.

    Args:
        spec: file, placement and adapters.
        on_progress: called with the fraction read, 0 to 1.

    Raises:
        LoadError: the file could not be loaded; `out_of_memory` says whether that was for want of memory.
    """

    def __init__(self, spec: LoadSpec, on_progress: Callable[[float], None]) -> None:
        start_backend()
        assert _log
        _log.buffers.clear()
        placement = spec.placement
        add_rpc_devices(spec.rpc)
        params = ll.llama_model_default_params()
        devices = _device_list(placement.devices)
        overrides = _override_list(placement.tensor_overrides)
        split = (ctypes.c_float * max(ll.llama_max_devices(), len(placement.tensor_split)))(*placement.tensor_split)
        params.devices = _address(devices)
        params.n_gpu_layers = placement.n_gpu_layers
        if placement.tensor_overrides:
            params.tensor_buft_overrides = _address(overrides)
        if placement.tensor_split:
            params.tensor_split = split

        def progress(fraction: float, _: object) -> bool:
            on_progress(fraction)
            return True

        params.progress_callback = ll.llama_progress_callback(progress)
        pointer = ll.llama_model_load_from_file(spec.path.encode(), params)
        if not pointer:
            raise load_error(f"{spec.path} could not be loaded")
        self.pointer = pointer
        vocab = ll.llama_model_get_vocab(pointer)
        assert vocab
        self.vocab = Vocab(vocab)
        self.n_layers: int = ll.llama_model_n_layer(self.pointer)
        self.n_embd: int = ll.llama_model_n_embd(self.pointer)
        self.n_embd_out: int = ll.llama_model_n_embd_out(self.pointer)
        self.n_scores: int = ll.llama_model_n_cls_out(self.pointer)
        """Scores that a model gives which ranks or classifies."""
        self.n_params: int = ll.llama_model_n_params(self.pointer)
        self.n_bytes: int = ll.llama_model_size(self.pointer)
        self.context_train: int = ll.llama_model_n_ctx_train(self.pointer)
        self.truncatable = not (
            ll.llama_model_is_recurrent(self.pointer)
            or ll.llama_model_is_hybrid(self.pointer)
            or ll.llama_model_n_swa(self.pointer) > 0
        )
        """Whether the end of a sequence can be dropped from its KV state at any token."""

    @property
    def architecture(self) -> str:
        """The model family, by llama.cpp's name."""
        return self.metadata("general.architecture") or "unknown"

    def metadata(self, key: str) -> str | None:
        """A metadata value of the file as text, or None."""
        buffer = _text_buffer(256)
        n = ll.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        if n < 0:
            return None
        if n >= len(buffer):
            buffer = _text_buffer(n + 1)
            ll.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """Architecture, size and type in a few words."""
        buffer = _text_buffer(128)
        ll.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template in the file, or None."""
        return self._template(None)

    @property
    def rerank_template(self) -> str | None:
        """How a model that ranks wants `{query}` and `{document}` put together, or None."""
        return self._template(b"rerank")

    def _template(self, name: bytes | None) -> str | None:
        template = ll.llama_model_chat_template(self.pointer, name)
        return template.decode("utf-8", "replace") if template else None


def log_callback() -> Any:
    """What llama.cpp's libraries are to call with what they print. `start_backend` has been called."""
    assert _log
    return _log.callback


def device_pointer(name: str) -> int:
    """A ggml device by its name. Raises LoadError where there is none."""
    return _device_list([name])[0]


def load_error(what: str) -> LoadError:
    """The error for something that llama.cpp has just failed to load, with its reason."""
    assert _log
    reasons = _log.errors[-8:]
    text = " ".join(reasons).lower()
    out_of_memory = "out of memory" in text or "failed to allocate" in text or "unable to allocate" in text
    first = next((reason.splitlines()[0] for reason in reasons if reason), ": llama.cpp gave no reason")
    reason = first.split(": ", 1)[-1]
    return LoadError(f"{what}: {reason}", out_of_memory=out_of_memory)


def device_bytes() -> dict[str, int]:
    """Bytes that the last loaded model and its contexts hold, by llama.cpp's name of the buffer's device."""
    assert _log
    return {name: round(size) for name, size in _log.buffers.items()}


@dataclass(frozen=True, slots=True)
class ContextShape:
    """The sizes a context is made with.

    Attributes:
        cells: KV cells in all, in tokens.
        sequences: how many sequences have a buffer of their own; in a unified context all share the cells.
        unified: whether they do.
        batch: tokens that one `decode` may take. ubatch: tokens computed at a time.
    """

    cells: int
    sequences: int
    unified: bool
    batch: int
    ubatch: int


class Context:
    """KV state and compute buffers for one model; decodes batches. To be used from one thread at a time."""

    def __init__(self, model: Model, spec: LoadSpec, shape: ContextShape) -> None:
        params = ll.llama_context_default_params()
        params.n_ctx = shape.cells
        params.n_batch = shape.batch
        params.n_ubatch = shape.ubatch
        params.n_seq_max = shape.sequences
        params.kv_unified = shape.unified
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
        tokens: Sequence[int] | npt.NDArray[np.int32],
        positions: Sequence[int] | npt.NDArray[np.int32],
        sequences: Sequence[int] | npt.NDArray[np.int32],
        outputs: Sequence[int] | npt.NDArray[np.int32],
    ) -> bool:
        """Compute one batch.

        Args:
            tokens, positions, sequences: one entry a token; positions of a sequence go on from where its state ends.
            outputs: indices into the batch whose logits are wanted, ascending.

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
        batch.outputs[:n] = 0
        batch.outputs[outputs] = 1
        batch.struct.n_tokens = n
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
        batch.sequences[:n] = sequence
        batch.outputs[:n] = 0
        struct = batch.of_embeddings(embeddings, positions)
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
        pointer = ll.llama_get_logits(self.pointer)
        return np.ctypeslib.as_array(pointer, shape=(rows, self._n_vocab))

    def embedding(self, sequence: int) -> npt.NDArray[np.float32]:
        """The pooled embedding of a sequence after a decode, n_embd_out floats, or its scores if the model ranks."""
        width = self.model.n_scores if self.pooling == "rank" else self.model.n_embd_out
        pointer = ll.llama_get_embeddings_seq(self.pointer, sequence)
        return np.ctypeslib.as_array(pointer, shape=(width,)).copy()

    def token_embeddings(self, rows: int) -> npt.NDArray[np.float32]:
        """The unpooled embeddings of the last batch: a view [rows, n_embd_out], valid until the next decode."""
        pointer = ll.llama_get_embeddings(self.pointer)
        return np.ctypeslib.as_array(pointer, shape=(rows, self.model.n_embd_out))

    @property
    def has_memory(self) -> bool:
        """Whether sequences go on from batch to batch; a mere encoder forgets each."""
        return bool(self._memory)

    def drop(self, sequence: int, start: int = 0) -> bool:
        """Forget a sequence's state from position `start` on. False where the model cannot drop a part."""
        return bool(ll.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def copy(self, source: int, target: int) -> None:
        """Make an empty sequence `target` share (unified) or repeat (split) all of `source`."""
        ll.llama_memory_seq_cp(self._memory, source, target, -1, -1)

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
        data = np.empty(size, np.uint8)
        target = _pointer(data, ctypes.c_uint8)
        written = ll.llama_state_seq_get_data(self.pointer, target, size, ll.llama_seq_id(sequence))
        return data[:written]

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
        """CPU threads for batches of one token a sequence, and for larger ones."""
        ll.llama_set_n_threads(self.pointer, decode, batch)

    def close(self) -> None:
        """Free the context."""
        ll.llama_free(self.pointer)


class _Batch:
    """A llama_batch over NumPy arrays, so that it is filled by slices and not token by token."""

    def __init__(self, capacity: int) -> None:
        self.tokens = np.zeros(capacity, np.int32)
        self.positions = np.zeros(capacity, np.int32)
        self.sequences = np.zeros(capacity, np.int32)
        self.outputs = np.zeros(capacity, np.int8)
        self._sequence_counts = np.ones(capacity, np.int32)
        # llama.cpp wants a pointer per token to its list of sequences: here each list is one element of `sequences`
        step = self.sequences.itemsize
        self._sequence_lists = self.sequences.ctypes.data + step * np.arange(capacity, dtype=np.uintp)
        self.struct = ll.llama_batch(
            token=_pointer(self.tokens, ctypes.c_int32),
            pos=_pointer(self.positions, ctypes.c_int32),
            n_seq_id=_pointer(self._sequence_counts, ctypes.c_int32),
            seq_id=_pointer(self._sequence_lists, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self.outputs, ctypes.c_int8),
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


def _pointer(array: npt.NDArray[Any], kind: type) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def _address(array: ctypes.Array[Any]) -> Any:
    """The array as void*, which is how llama_cpp declares fields that are arrays in llama.h."""
    return ctypes.cast(array, ctypes.c_void_p)


def _text_buffer(size: int) -> Any:
    """A char array to be written to; llama_cpp's annotations ask for bytes there, which cannot be."""
    return ctypes.create_string_buffer(size)
