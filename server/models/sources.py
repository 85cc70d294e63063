"""What FROM, ADAPTER and DRAFT name: a checkpoint folder, a GGUF file, or a model in the store."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

import converter
from server.errors import BrimError
from server.models.files import sha256
from server.models.manifest import names_repository
from server.models.parameters import Parameters, parse_parameter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.models.manifest import Manifest
    from server.models.store import Store

CHECKPOINT_FILES = frozenset({".safetensors", ".json", ".model", ".jinja", ".txt"})
"""Suffixes of the files that a conversion may read."""

READ_WHOLE_BYTES = 64 * 1024**2
"""A larger file is known by its place, size and age: reading it would take longer than a second."""

SAMPLING_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""What generation_config.json calls the parameters that it may recommend."""


@dataclass(frozen=True)
class Source:
    """What to make a model from: a folder or file, which is the store's own where `manifest` tells what it is there."""

    path: Path
    manifest: Manifest | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint folder, not a GGUF file."""
        return self.path.is_dir()

    def __str__(self) -> str:
        return self.manifest.name if self.manifest else str(self.path)


def find_source(store: Store, text: str, folder: Path, keyword: str = "FROM") -> Source:
    """Find what a Modelfile names.

    Args:
        store: where models are looked up by name.
        text: the keyword's argument. What begins as a repository on the hub does is the name of a model fetched from
            there; else what has a slash or ends in `.gguf` is a path, anything else first a model's name.
        folder: the Modelfile's folder, which relative paths start from.
        keyword: the keyword, for error messages.

    Raises:
        BrimError: there is nothing of that name.
    """
    path = Path(os.path.abspath(folder / Path(text).expanduser()))
    is_path = "/" in text or text.lower().endswith(".gguf") or text in (".", "..", "~")
    if names_repository(text) or (not is_path and text in store):
        manifest = store.get(text)
        return Source(store.model_path(manifest), manifest)
    if path.exists():
        return Source(path)
    if is_path:
        raise BrimError(f"{keyword} names {text}, and there is no {path}")
    raise BrimError(f"{keyword} names {text!r}, and there is neither such a model in the store nor {path}")


def fingerprint(path: Path) -> str:
    """A hash of a file's or checkpoint folder's content; of large files, only of what shows that they have changed."""
    files = sorted(file for file in path.iterdir() if file.suffix in CHECKPOINT_FILES) if path.is_dir() else [path]
    return _hash(f"{file.name if path.is_dir() else ''}:{_file_fingerprint(file)}" for file in files)


def made_from(source: str, target: str | None) -> str:
    """A hash of all that a GGUF file follows from.

    Args:
        source: the source's fingerprint or digest.
        target: the quantization type it is written in by the converter, None where the file is taken as it is.
    """
    return _hash([source, *([target, _converter_fingerprint()] if target else [])])


def sampling_defaults(checkpoint: Path) -> Parameters:
    """The sampling that a checkpoint's generation_config.json recommends, if it does.

    Raises:
        BrimError: a value in it cannot be.
    """
    path = checkpoint / "generation_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Parameters()
    except (OSError, ValueError) as error:
        raise BrimError(f"{path} cannot be read: {error}") from error
    if not config.get("do_sample"):
        return Parameters()
    values: dict[str, int | float | str] = {}
    for theirs, ours in SAMPLING_NAMES.items():
        if config.get(theirs) is not None:
            try:
                values[ours] = parse_parameter(ours, str(config[theirs]))
            except ValueError as error:
                raise BrimError(f"{path}: {theirs} takes {error}, not {config[theirs]!r}") from None
    return structs.replace(Parameters(), **values)


def _file_fingerprint(file: Path) -> str:
    status = file.stat()
    if status.st_size <= READ_WHOLE_BYTES:
        return sha256(file)
    return f"{file.resolve()}:{status.st_size}:{status.st_mtime_ns}"


def _converter_fingerprint() -> str:
    """A hash of the converter's own code, so that a better converter makes a model anew."""
    folder = Path(converter.__file__).parent
    code = (file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py")))
    return _hash([version("llama-cpp-python"), *code])


def _hash(parts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{len(part)}:{part}".encode())
    return found.hexdigest()
