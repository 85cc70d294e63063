"""Which of a repository's files make the model: the GGUF file that is asked for, or a checkpoint to convert."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from server.errors import BrimError
from server.models.projector import MARK, is_named_as_projector
from server.models.sources import CHECKPOINT_FILES

if TYPE_CHECKING:
    from server.models.hub import RemoteFile, Repository

PREFERRED = ("Q4_K_M", "Q4_0", "Q8_0")
"""The quantization types that are taken, the first there is, where none is asked for."""
PREFERRED_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
"""The same for projectors, which are small and lose by fewer bits."""
NO_MODEL = (MARK, "imatrix")
"""Words in the names of GGUF files that are no language model: projectors, importance matrices."""
SHOWN = 12
"""File names that an error message lists at most."""

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)

GGUF = tuple["RemoteFile", ...]
"""A model in GGUF form: one file, or the parts of a split one in their order."""


def choose(repository: Repository, choice: str | None) -> GGUF:
    """The GGUF file that a name asks for.

    Args:
        repository: what there is.
        choice: a file's name, with or without its folder, or a quantization type, in any case; None takes the first
            of `PREFERRED`, else the only one there is.

    Returns:
        The file, or the parts of a split one. Nothing where the repository has no GGUF files.

    Raises:
        BrimError: the repository has no such file, or several; the message names those there are.
    """
    models = _models(repository)
    if not models:
        return ()
    if choice is None:
        for quantization in PREFERRED:
            if found := [name for name in models if _has(name, quantization)]:
                return models[_only(found, repository, quantization)]
        return models[_only(list(models), repository, "default")]
    found = [name for name, files in models.items() if _is_named(name, files, choice)]
    found = found or [name for name in models if _has(name, choice)]
    if not found:
        raise BrimError(f"{repository.name} has no GGUF file {choice}; there are {_listed(list(models))}")
    return models[_only(found, repository, choice)]


def choose_projector(repository: Repository) -> RemoteFile | None:
    """The multimodal projector that comes with a model: of the first type in `PREFERRED_PROJECTORS`, else by name."""
    named = (file for file in repository.files if is_named_as_projector(PurePosixPath(file.name).name))
    files = sorted(named, key=lambda file: file.name)
    of_type = (file for quantization in PREFERRED_PROJECTORS for file in files if _has(file.name, quantization))
    return next(of_type, files[0] if files else None)


def checkpoint_files(repository: Repository) -> tuple[RemoteFile, ...]:
    """The files that a conversion reads: safetensors, configuration and tokenizer, from the repository's top folder.

    Raises:
        BrimError: it holds no safetensors files.
    """
    files = [f for f in repository.files if "/" not in f.name and PurePosixPath(f.name).suffix in CHECKPOINT_FILES]
    weights = [file for file in files if file.name.endswith(".safetensors")]
    if not weights:
        raise BrimError(f"{repository.name} holds neither GGUF nor safetensors files, which brim makes models from")
    # Some repositories hold their weights twice, once more in their maker's own form.
    named = [file for file in weights if file.name.startswith("model")] or weights
    return tuple(file for file in files if file not in weights or file in named)


def _models(repository: Repository) -> dict[str, GGUF]:
    """Every model in GGUF form by its file's name, without the part's number where it is split."""
    grouped: dict[str, list[RemoteFile]] = defaultdict(list)
    for file in sorted(repository.files, key=lambda file: file.name):
        base = PurePosixPath(file.name).name.lower()
        if base.endswith(".gguf") and not any(word in base for word in NO_MODEL):
            part = _PART.fullmatch(file.name)
            grouped[f"{part['stem']}.gguf" if part else file.name].append(file)
    return {name: tuple(files) for name, files in grouped.items() if _is_whole(files)}


def _is_whole(files: list[RemoteFile]) -> bool:
    parts = [_PART.fullmatch(file.name) for file in files]
    numbers = [(int(part["number"]), int(part["count"])) for part in parts if part]
    return not numbers or numbers == [(number, len(files)) for number in range(1, len(files) + 1)]


def _is_named(name: str, files: GGUF, choice: str) -> bool:
    names = {name, *(file.name for file in files)}
    return choice.lower() in {spelling.lower() for full in names for spelling in (full, PurePosixPath(full).name)}


def _has(name: str, quantization: str) -> bool:
    """Whether a file's name tells of a quantization type: Q4_K is not one that tells of Q4_K_M."""
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(quantization)}(?![a-z0-9_])", name, re.IGNORECASE))


def _only(found: list[str], repository: Repository, wanted: str) -> str:
    if len(found) > 1:
        raise BrimError(
            f"{repository.name} has several GGUF files and no single {wanted} one; "
            f"name one after a colon, of {_listed(found)}"
        )
    return found[0]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(PurePosixPath(name).name for name in names[:SHOWN]) + more
