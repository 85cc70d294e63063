"""Joins the parts of a split GGUF file, so that a model is one file, and its name its content's digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.gguf_format import align, encode_header, lay_out
from converter.gguf_info import read_gguf_info
from server.errors import BrimError
from server.models.files import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from server.models.files import Progress

FIELDS = ("split.no", "split.count", "split.tensors.count")
"""What tells a part from a whole file (llama.cpp, src/llama-arch.cpp)."""


def join(parts: Sequence[Path], out: Path, progress: Progress | None = None) -> None:
    """Write one GGUF file with the tensors of all parts and the metadata of the first, which has all of it.

    Args:
        parts: the parts in their order.
        out: the file to write.
        progress: called with the bytes of tensors written and in all.

    Raises:
        BrimError: they are not the parts of one file.
        ConversionError: one of them is no sound GGUF file.
    """
    infos = [read_gguf_info(part) for part in parts]
    for number, info in enumerate(infos):
        if (info.get("split.no"), info.get("split.count")) != (number, len(parts)):
            raise BrimError(f"{info.path.name} is not part {number + 1} of {len(parts)} of a split model")
    sources = [(info, tensor) for info in infos for tensor in info.tensors]
    layout = lay_out([(tensor.name, tensor.shape, tensor.type) for _, tensor in sources])
    left_out = (*FIELDS, "general.alignment")
    fields = {key: field for key, field in infos[0].fields.items() if key not in left_out}
    done, total = 0, sum(tensor.nbytes for tensor in layout)
    with out.open("wb") as whole:
        whole.write(encode_header(fields, layout))
        for info, tensor in sources:
            with info.path.open("rb") as part:
                part.seek(info.data_start + tensor.offset)
                _copy(part, whole, tensor.nbytes)
            whole.write(bytes(align(tensor.nbytes) - tensor.nbytes))
            done += tensor.nbytes
            if progress:
                progress(done, total)


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count:
        chunk = source.read(min(count, CHUNK_BYTES))
        target.write(chunk)
        count -= len(chunk)
