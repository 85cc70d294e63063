"""Weights on the devices of a placement."""

# pyright: basic

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as ll
from llama_cpp._ggml import libggml

from server.engine.kernels.ggml import offloads_batches
from server.engine.kernels.install import prepare
from server.engine.llama.backend import (
    add_rpc_devices,
    device_list,
    device_pointer,
    forget_device_bytes,
    load_error,
    start_backend,
)
from server.engine.llama.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from server.engine.load_spec import LoadSpec


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
        forget_device_bytes()
        placement = spec.placement
        add_rpc_devices(spec.rpc)
        params = ll.llama_model_default_params()
        devices = device_list(placement.devices)
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

        kernels = prepare(Path(spec.state_dir) if spec.state_dir else None) if spec.kernels else None
        if kernels:
            params.use_extra_bufts = spec.reorder
        params.progress_callback = ll.llama_progress_callback(progress)
        pointer = ll.llama_model_load_from_file(spec.path.encode(), params)
        if not pointer:
            raise load_error(f"{spec.path} could not be loaded")
        self.pointer = pointer
        vocab = ll.llama_model_get_vocab(pointer)
        assert vocab
        self.vocab = Vocab(vocab)
        self.n_layers: int = ll.llama_model_n_layer(self.pointer)
        self.on_cpu = placement.n_gpu_layers <= self.n_layers or bool(placement.tensor_overrides)
        """Whether the CPU computes some of it."""
        if kernels and self.on_cpu:
            kernels.install(beside_gpu=any(offloads_batches(device) for device in devices if device))
        self.n_heads: int = ll.llama_model_n_head(self.pointer)
        """Heads of attention, in the first layer."""
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

    @property
    def dense(self) -> bool:
        """Whether each token is computed with all weights."""
        return self.metadata(f"{self.architecture}.expert_count") in (None, "0")

    @property
    def latent_attention(self) -> bool:
        """Whether values are part of the keys (MLA)."""
        return self.metadata(f"{self.architecture}.attention.key_length_mla") is not None

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


class _TensorOverride(ctypes.Structure):
    """llama_model_tensor_buft_override in llama.h."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))


def _override_list(overrides: Sequence[tuple[str, str]]) -> ctypes.Array[_TensorOverride]:
    libggml.ggml_backend_dev_buffer_type.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_buffer_type.argtypes = [ctypes.c_void_p]
    array = (_TensorOverride * (len(overrides) + 1))()
    for i, (pattern, device) in enumerate(overrides):
        array[i].pattern = pattern.encode()
        array[i].buft = libggml.ggml_backend_dev_buffer_type(device_pointer(device))
    return array


def _address(array: ctypes.Array[Any]) -> Any:
    """The array as void*, which is how llama_cpp declares fields that are arrays in llama.h."""
    return ctypes.cast(array, ctypes.c_void_p)


def _text_buffer(size: int) -> Any:
    """A char array to be written to; llama_cpp's annotations ask for bytes there, which cannot be."""
    return ctypes.create_string_buffer(size)
