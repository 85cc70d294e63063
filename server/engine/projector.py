"""The multimodal projector: what turns images and sounds into a model's embeddings (llama.cpp's tools/mtmd)."""

# pyright: basic

from __future__ import annotations

import ctypes
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as ll
import llama_cpp.mtmd_cpp as _mtmd
import numpy as np
import numpy.typing as npt
import xxhash

from converter.gguf_info import read_gguf_info
from server.engine.llama.backend import device_bytes, device_pointer, load_error, log_callback
from server.engine.pictures import read_picture
from server.engine.positions import Span
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.llama.model import Model
    from server.engine.load_spec import LoadSpec
    from server.engine.request import Medium

mtmd: Any = _mtmd
"""llama_cpp's annotations of pointers and of what may be null do not hold for what its functions take and give."""

Embeddings = npt.NDArray[np.float32]

_NOT_UNDERSTOOD = 2
_MROPE_POSITIONS = 4
"""Positions that M-RoPE gives each embedding: time, height, width and one that is not used."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Chunk:
    """A run of embeddings among a prompt's tokens: an image, one of the tiles it was cut into, or a sound.

    Attributes:
        key: digest of what it shows; equal for equal content.
        span: where in the prompt it stands.
        whole: its embeddings attend to each other both ways, so all must be computed in one batch.
        embeddings: what is decoded [span.tokens, n_embd], None until they have been computed.
    """

    key: str
    span: Span
    whole: bool
    pointer: Any = field(repr=False)
    embeddings: Embeddings | None = field(default=None, repr=False)

    @property
    def tokens(self) -> list[int]:
        """What stands for it in a prompt: numbers below zero, which no vocabulary has, made from its content."""
        digests = (xxhash.xxh32_intdigest(self.key.encode(), seed) for seed in range(self.span.tokens))
        return [-1 - (digest >> 1) for digest in digests]


class Projector:
    """A projector loaded from a GGUF file, on one device or the CPU.

    Args:
        model: the language model that it belongs to.
        threads: CPU threads for encoding.

    Attributes:
        device_bytes: what it holds before it has seen anything, by llama.cpp's name of the device's memory.

    Raises:
        LoadError: the file could not be loaded, or belongs to another model.
    """

    def __init__(self, model: Model, spec: LoadSpec, threads: int) -> None:
        mtmd.mtmd_helper_log_set(log_callback(), ctypes.c_void_p(0))
        before = Counter(device_bytes())
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = bool(spec.projector_device)
        if spec.projector_device:
            params.device = device_pointer(spec.projector_device)
        params.print_timings = False
        params.n_threads = threads
        params.warmup = bool(spec.projector_device)
        pointer = mtmd.mtmd_init_from_file(spec.projector_path.encode(), model.pointer, params)
        if not pointer:
            raise load_error(
                f"the projector {spec.projector_path} does not fit {spec.name} (--projector none serves it without)"
            )
        self._pointer = pointer
        self.device_bytes = _held(spec, Counter(device_bytes()) - before)
        self._mrope = bool(mtmd.mtmd_decode_use_mrope(pointer))
        self._width: int = ll.llama_model_n_embd_inp(model.pointer)
        file = Path(spec.projector_path).stat()
        self._identity = f"{file.st_size} {file.st_mtime_ns} "
        """Whose embeddings these are: states on disk that hold another's must not be taken for this one's."""
        self._ubatch = spec.placement.n_ubatch
        self.vision = bool(mtmd.mtmd_support_vision(pointer))
        self.hearing = bool(mtmd.mtmd_support_audio(pointer))

    def tokenize(
        self, parts: Sequence[str | Medium], *, add_special: bool = True, parse_special: bool = True
    ) -> tuple[list[int], list[Chunk]]:
        """Tokens of a prompt with media, and the chunks that the media became. Safe to use from several threads.

        Args:
            parts: texts and media in their order.
            add_special: whether the tokenizer adds its BOS. parse_special: whether special tokens in texts are read.

        Raises:
            RequestError: a medium is of a kind that the model does not know, or cannot be read.
        """
        bitmaps: list[Any] = []
        chunks = mtmd.mtmd_input_chunks_init()
        assert chunks
        try:
            inputs = [self._input(part, bitmaps, parse_special=parse_special) for part in parts]
            pointers = (ctypes.POINTER(mtmd.mtmd_input_part) * len(inputs))(*map(ctypes.pointer, inputs))
            status = mtmd.mtmd_tokenize_from_parts(self._pointer, chunks, pointers, len(inputs), add_special)
            if status == _NOT_UNDERSTOOD:
                raise RequestError(
                    "an image or a sound cannot be prepared for this model; send another", param="messages"
                )
            assert status == 0
            return self._read(chunks)
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            for bitmap in bitmaps:
                mtmd.mtmd_bitmap_free(bitmap)

    def _input(self, part: str | Medium, bitmaps: list[Any], *, parse_special: bool) -> Any:
        if isinstance(part, str):
            data = part.encode("utf-8", "replace")
            text = mtmd.mtmd_input_text(data, len(data), False, parse_special)
            return mtmd.mtmd_input_part(ctypes.pointer(text), None)
        bitmap = self._picture(part.data) if part.kind == "image" else self._sound(part.data)
        # the number tells one image's chunks from those of another that shows the same
        mtmd.mtmd_bitmap_set_id(bitmap, f"{len(bitmaps)}:{self._digest(part.data)}".encode())
        bitmaps.append(bitmap)
        return mtmd.mtmd_input_part(None, bitmap)

    def _digest(self, data: bytes) -> str:
        return xxhash.xxh3_128_hexdigest(self._identity.encode() + data)

    def _picture(self, data: bytes) -> Any:
        if not self.vision:
            raise RequestError("this model has no vision; leave the images out", param="messages")
        pixels = read_picture(data)
        height, width, _ = pixels.shape
        return mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))

    def _sound(self, data: bytes) -> Any:
        if not self.hearing:
            raise RequestError("this model does not hear; leave the audio out", param="messages")
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        bitmap = mtmd.mtmd_helper_bitmap_init_from_buf(self._pointer, buffer, len(data), False)
        if not bitmap or not mtmd.mtmd_bitmap_is_audio(bitmap):
            raise RequestError("a sound cannot be read; send a WAV, MP3 or FLAC file", param="messages")
        return bitmap

    def _read(self, chunks: Any) -> tuple[list[int], list[Chunk]]:
        tokens: list[int] = []
        found: list[Chunk] = []
        counts: Counter[bytes] = Counter()
        for number in range(mtmd.mtmd_input_chunks_size(chunks)):
            pointer = mtmd.mtmd_input_chunks_get(chunks, number)
            if mtmd.mtmd_input_chunk_get_type(pointer) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                length = ctypes.c_size_t()
                text = mtmd.mtmd_input_chunk_get_tokens_text(pointer, ctypes.byref(length))
                tokens += text[: length.value]
                continue
            name = mtmd.mtmd_input_chunk_get_id(pointer)
            found.append(self._chunk(pointer, len(tokens), f"{name.partition(b':')[2].decode()} {counts[name]}"))
            counts[name] += 1
            tokens += found[-1].tokens
        return tokens, found

    def _chunk(self, pointer: Any, start: int, key: str) -> Chunk:
        tokens = mtmd.mtmd_input_chunk_get_n_tokens(pointer)
        whole = bool(mtmd.mtmd_decode_use_non_causal(self._pointer, pointer))
        if whole and tokens > self._ubatch:
            raise RequestError(
                f"the image takes {tokens} tokens, and a batch of this model holds {self._ubatch}; send a smaller one",
                param="messages",
            )
        span = Span(start, tokens, mtmd.mtmd_input_chunk_get_n_pos(pointer))
        chunk = Chunk(key, span, whole, mtmd.mtmd_input_chunk_copy(pointer))
        weakref.finalize(chunk, mtmd.mtmd_input_chunk_free, chunk.pointer)
        return chunk

    def encode(self, chunk: Chunk) -> Embeddings:
        """A chunk's embeddings [tokens, n_embd]. To be used from one thread. Raises RuntimeError where it fails."""
        if mtmd.mtmd_encode_chunk(self._pointer, chunk.pointer):
            raise RuntimeError("the projector failed on an image or a sound")
        output = mtmd.mtmd_get_output_embd(self._pointer)
        return np.ctypeslib.as_array(output, shape=(chunk.span.tokens, self._width)).copy()

    def positions(self, chunk: Chunk, first: int) -> npt.NDArray[np.int32]:
        """Where a chunk's embeddings stand, the first at position `first`: [kinds, tokens], as llama.cpp wants it."""
        n = chunk.span.tokens
        line = np.arange(first, first + n, dtype=np.int32)
        if not self._mrope:
            return line[None]
        image = mtmd.mtmd_input_chunk_get_tokens_image(chunk.pointer)
        if not image:
            return np.tile(line, (_MROPE_POSITIONS, 1))
        places = (mtmd.mtmd_decoder_pos * n)()
        mtmd.mtmd_helper_image_get_decoder_pos(image, first, places)
        t, x, y, z = np.frombuffer(places, np.uint32).reshape(n, _MROPE_POSITIONS).T
        return np.stack([t, y, x, z]).astype(np.int32)


def _held(spec: LoadSpec, compute: Counter[str]) -> dict[str, int]:
    """A projector's bytes: the compute buffers that clip.cpp told of, and its weights, of which it tells no buffer."""
    weights = read_gguf_info(spec.projector_path).tensor_bytes
    device = next((buffer for buffer in compute if buffer != "CPU"), spec.projector_device)
    return dict(compute + Counter({device or "CPU": weights}))
