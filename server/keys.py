"""API keys: where they come from, and how one is recognized without being kept."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import stat
from typing import TYPE_CHECKING

from server.errors import BrimError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)

HASHED = "sha256:"
_KEY = re.compile(r"[\x21-\x7e]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeyRing:
    """The API keys, kept as SHA-256 hashes.

    Args:
        entries: keys, or their hashes in the form `sha256:HEX`.

    Raises:
        BrimError: an entry is neither.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._hashes = [bytes.fromhex(hash_entry(entry).removeprefix(HASHED)) for entry in entries]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def partition(self, key: str | None) -> str | None:
        """The cache partition of a key, or None if the key is not one of ours. Any wrong key takes equally long."""
        if not key:
            return None
        given = _hash(key)
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        return hashlib.sha256(b"partition" + given).hexdigest()[:32] if any(matches) else None


def hash_entry(entry: str) -> str:
    """A key as `sha256:HEX`; one that is given so already stays as it is.

    Raises:
        BrimError: a key that no HTTP header can carry, a malformed hash, or that of an empty key. The message does not
            repeat it.
    """
    if entry.startswith(HASHED):
        digest = entry.removeprefix(HASHED).lower()
        if not _DIGEST.fullmatch(digest):
            raise BrimError("an API key that begins with sha256: must go on with the 64 hexadecimal digits of its hash")
        if digest == _hash("").hex():
            raise BrimError("this sha256: is the hash of nothing at all: the variable it was made of was empty")
        return HASHED + digest
    if not _KEY.fullmatch(entry):
        raise BrimError("an API key may hold only visible ASCII characters, and no spaces")
    return HASHED + _hash(entry).hex()


def read_key_file(path: Path) -> tuple[str, ...]:
    """The entries of a file of keys: one a line; empty lines and lines that begin with # count for nothing.

    A file that other users of the machine can read is warned of, not refused: secrets mounted into containers are so.

    Raises:
        BrimError: the file cannot be read, holds no key, or a line is no key.
    """
    try:
        lines = path.read_text("ascii").splitlines()
        mode = path.stat().st_mode
    except OSError as error:
        raise BrimError(f"the API key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BrimError(f"the API key file {path} holds characters that no key can have; keys are ASCII") from error
    entries: list[str] = []
    for number, line in enumerate(lines, 1):
        if (entry := line.strip()) and not entry.startswith("#"):
            try:
                entries.append(hash_entry(entry))
            except BrimError as error:
                raise BrimError(f"line {number} of the API key file {path}: {error}") from error
    if not entries:
        raise BrimError(f"the API key file {path} holds no key: write one a line")
    if mode & stat.S_IROTH:
        logger.warning("every user of this machine can read the API keys in %s; run chmod 600 on it", path)
    return tuple(entries)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
