"""Files that clients send to make models of: they lie beside the store for a day, or until a model is made of them.

Under `uploads` of the store's folder, `sha256-...` is a whole file, whose content has that digest, and `part-...` one
that is coming in, or was when its server ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import BrimError, RequestError
from server.models.files import sync
from server.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import IO

    from server.models.store import Store

KEPT_SECONDS = 86_400.0
WRITE_BYTES = 1 << 20
"""A client's pieces are gathered up to about so many bytes for each write."""
PRIVATE = 0o700
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


def parse_digest(text: str) -> str:
    """A digest as `sha256:` and 64 hexadecimal digits. Raises RequestError where it is none."""
    found = _DIGEST.fullmatch(text.lower())
    if not found:
        raise RequestError(f"'{text}' is no digest: it should be sha256: and 64 hexadecimal digits", param="digest")
    return f"sha256:{found[1]}"


class Uploads:
    """The uploaded files beside a store.

    Args:
        store: which models are made in.
        most_bytes: that all of them may have together.
    """

    def __init__(self, store: Store, most_bytes: int) -> None:
        self._store = store
        self._folder = store.root / "uploads"
        self._most_bytes = most_bytes

    def find(self, digest: str) -> Path | None:
        """Where a file of that content lies, uploaded or in the store."""
        paths = (self._store.blob_path(digest), self._path(digest))
        return next((path for path in paths if path.is_file()), None)

    def remove(self, digest: str) -> None:
        """Remove an uploaded file, if it is there. What the store has of it stays."""
        self._path(digest).unlink(missing_ok=True)

    async def receive(self, digest: str, pieces: AsyncIterator[bytes]) -> None:
        """Take a file in; unless it comes whole and is what its digest says, nothing of it stays.

        Args:
            digest: of its content.
            pieces: its content.

        Raises:
            RequestError: 400 for another content, 413 where it is too large beside those that lie here, 507 where it
                cannot be written.
            BaseException: whatever `pieces` raises.
        """
        part: Path | None = None
        try:
            await asyncio.to_thread(self._make_room)
            with tempfile.NamedTemporaryFile(prefix="part-", dir=self._folder, delete=False) as file:
                part = Path(file.name)
                found = await self._write(file, pieces)
            if found != digest:
                raise RequestError(f"the file's digest is {found}, not {digest}; send it again", param="digest")
            await asyncio.to_thread(self._keep, part, digest)
        except OSError as error:
            raise RequestError(f"the upload cannot be written: {error.strerror}", status=507) from error
        finally:
            if part:
                part.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / digest.replace(":", "-")

    def _make_room(self) -> None:
        """Remove what is too old."""
        self._folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # somebody else has just removed it
                if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                    path.unlink()

    def _require_room(self) -> None:
        used = 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                used += path.stat().st_size
        if used > self._most_bytes:
            most = format_size(self._most_bytes)
            message = f"uploads may have {most} together; use brim create on the server, or set BRIM_MAX_UPLOAD"
            raise RequestError(message, status=413, code="request_too_large")

    async def _write(self, file: IO[bytes], pieces: AsyncIterator[bytes]) -> str:
        """Write a file as its pieces come; returns its digest. Raises RequestError where there is no room for it."""
        digest = hashlib.sha256()
        waiting = bytearray()

        def flush() -> None:
            digest.update(waiting)
            file.write(waiting)
            file.flush()
            waiting.clear()
            self._require_room()

        async for piece in pieces:
            waiting += piece
            if len(waiting) >= WRITE_BYTES:
                await asyncio.to_thread(flush)
        await asyncio.to_thread(flush)
        return f"sha256:{digest.hexdigest()}"

    def _keep(self, part: Path, digest: str) -> None:
        sync(part)
        part.replace(self._path(digest))
        sync(self._folder)


def the_only_gguf(files: dict[str, str]) -> tuple[str, str]:
    """Name and digest of the file to make a model of.

    Raises:
        BrimError: there are several, or it is no GGUF file by its name.
    """
    if len(files) != 1:
        raise BrimError("files: brim makes a model of one GGUF file; use brim create on the server for a checkpoint")
    ((name, digest),) = files.items()
    if not name.lower().endswith(".gguf"):
        raise BrimError(f"files: {name} is no GGUF file by its name; use brim create on the server for a checkpoint")
    return name, digest
