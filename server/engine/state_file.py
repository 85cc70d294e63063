"""What is found out at a model's first load, kept in the state folder: each file written whole, or not at all."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from converter.gguf_writer import temporary_beside

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("brim.state")


def remember(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Keep content in a file. A folder that cannot be written to is no error: it is found out again next time.

    Args:
        mode: the file's permissions, of which the process's umask takes some.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
            temporary.replace(path)
    except OSError as error:
        log.warning("could not remember %s: %s", path, error)
