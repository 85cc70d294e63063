"""The file of one state: what it says of itself, and where its state begins.

It is a magic line, a MessagePack header and the state. Its name is the digest of what it stands for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

if TYPE_CHECKING:
    from pathlib import Path

State = npt.NDArray[np.uint8]

MAGIC = b"brim-kv-1\n"
ANY_MAGIC = b"brim-kv-"
"""How files of all versions begin."""


class Header(msgspec.Struct, frozen=True):
    """What a file says of itself: the key its state depends on, whose it is, and the tokens it stands for."""

    key: str
    partition: str
    tokens: list[int]
    size: int
    checksum: int


def file_name(partition: str, tokens: list[int]) -> str:
    """What a state's file is called; it covers what the checksum of the state does not."""
    return xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode((partition, tokens)))


def file_start(header: Header) -> bytes:
    """What a file has before its state."""
    packed = msgspec.msgpack.encode(header)
    return MAGIC + struct.pack("<I", len(packed)) + packed


def is_state(path: Path) -> bool:
    """Whether a file is a state of any version. Others may be anybody's."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(ANY_MAGIC)) == ANY_MAGIC


def read_header(path: Path) -> tuple[Header, int]:
    """A file's header and where its state begins. Raises ValueError where it is none of ours."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 4)
        require(start.startswith(MAGIC) and len(start) == len(MAGIC) + 4, "it is no state file of this version")
        (length,) = struct.unpack("<I", start[len(MAGIC) :])
        require(length <= path.stat().st_size, "it is torn")
        header = _decoded(file.read(length))
    offset = len(start) + length
    require(path.stat().st_size == offset + header.size, "it is torn")
    return header, offset


def _decoded(packed: bytes) -> Header:
    try:
        return msgspec.msgpack.decode(packed, type=Header)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error


def require(condition: bool, otherwise: str) -> None:
    """Raise ValueError unless a condition holds that a file of ours keeps."""
    if not condition:
        raise ValueError(otherwise)
