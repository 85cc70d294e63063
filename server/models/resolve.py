"""What the MODEL of a command names: a model in the store, one fetched from the hub too, or a GGUF file by its path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.errors import ConversionError
from converter.gguf_info import read_gguf_info
from server.errors import BrimError
from server.models.embedding import pooling_of
from server.models.manifest import names_repository
from server.models.parameters import Parameters
from server.models.projector import NO_PROJECTOR, beside, read_projector, refuse_projector

if TYPE_CHECKING:
    from converter.gguf_info import GGUFInfo
    from server.engine.load_spec import Pooling
    from server.models.create import Progress
    from server.models.manifest import Manifest
    from server.models.store import Store

FINGERPRINTED = 1024**2
"""Bytes at a file's either end that go into its fingerprint."""


@dataclass(frozen=True)
class ModelSource:
    """A model's files, and how it behaves unless a request says otherwise.

    Attributes:
        name: what requests call it.
        path: its GGUF file.
        digest: tells whether two loads are of the same weights.
        parameters: defaults for requests and for loading.
        system: the system prompt of chats that bring none.
        template: a Jinja chat template in place of the model's own; None keeps that.
        messages: what every chat begins with, in OpenAI's form.
        adapters: LoRA files and their scales.
        draft: the GGUF file of a smaller model that proposes tokens.
        projector: the GGUF file that reads images and sounds for it.
        pooling: how it sums up a text, if it is made for embeddings or ranking; None if it generates text.
    """

    name: str
    path: Path
    digest: str
    parameters: Parameters = field(default_factory=Parameters)
    system: str | None = None
    template: str | None = None
    messages: tuple[dict[str, Any], ...] = ()
    adapters: tuple[tuple[str, float], ...] = ()
    draft: Path | None = None
    projector: Path | None = None
    pooling: Pooling | None = None


def resolve(model: str, store: Store, projector: str | None = None) -> ModelSource:
    """Find what MODEL names. Nothing is fetched: what names a repository on the hub is looked for in the store.

    Args:
        model: a name in the store, or a GGUF file's path.
        store: where names are looked up.
        projector: as `with_projector` takes it; None also takes the only projector that lies beside a GGUF file.

    Raises:
        BrimError: there is no such model or file, or the file is no sound GGUF file; the message says what to do.
    """
    file = _as_file(model)
    if file is None:
        return with_projector(from_manifest(store.get(model), store), projector)
    source = _from_file(file)
    if projector is None and source.pooling is None:
        return replace(source, projector=beside(file))
    return with_projector(source, projector)


def with_projector(source: ModelSource, wish: str | None) -> ModelSource:
    """A model with the projector that the user wants.

    Args:
        source: the model.
        wish: the projector's file, or `none`; None leaves the model as it is.

    Raises:
        BrimError: the file is no sound projector, or the model can have none.
    """
    if wish is None:
        return source
    if wish == NO_PROJECTOR:
        return replace(source, projector=None)
    if source.pooling is not None:
        raise BrimError(f"{source.name} generates no text, and a projector is for models that do; leave it out")
    path = Path(wish).expanduser().resolve()
    read_projector(path)
    return replace(source, projector=path)


def ensure_pulled(model: str, store: Store, progress: Progress | None = None) -> None:
    """Fetch what a command names, if it names a repository on the hub and the store has no model of that name.

    Raises:
        BrimError: as `look_up` and `pull` do.
    """
    if names_repository(model) and model not in store:
        from server.models.pull import look_up, pull

        pull(store, look_up(model), progress)


def from_manifest(manifest: Manifest, store: Store) -> ModelSource:
    """The model that a manifest describes. Raises BrimError if one of its files is gone or damaged."""
    path = store.model_path(manifest)
    info = _read(path)
    return ModelSource(
        name=manifest.name,
        path=path,
        digest=manifest.digest,
        parameters=manifest.parameters,
        system=manifest.system,
        template=manifest.template,
        messages=tuple({"role": message.role, "content": message.text} for message in manifest.messages),
        adapters=tuple((str(store.blob_path(adapter.digest)), adapter.scale) for adapter in manifest.adapters),
        draft=store.blob_path(manifest.draft.digest) if manifest.draft else None,
        projector=store.blob_path(manifest.projector.digest) if manifest.projector else None,
        pooling=pooling_of(info),
    )


def _as_file(model: str) -> Path | None:
    """The file that MODEL names; None where it is a model's name."""
    path = Path(model).expanduser()
    if names_repository(model):
        return None
    if path.is_dir():
        raise BrimError(f"{path} is a folder: convert it first, with brim convert {path}")
    if path.suffix == ".gguf" or path.is_file():
        return path
    if len(path.parts) > 1:
        raise BrimError(f"{path} does not exist")
    return None


def _from_file(path: Path) -> ModelSource:
    if not path.exists():
        raise BrimError(f"{path} does not exist")
    path = path.resolve()
    info = _read(path)
    refuse_projector(info.architecture, path)
    return ModelSource(name=path.stem, path=path, digest=_fingerprint(path), pooling=pooling_of(info))


def _read(path: Path) -> GGUFInfo:
    try:
        return read_gguf_info(path)
    except ConversionError as error:
        raise BrimError(str(error)) from error


def _fingerprint(path: Path) -> str:
    """Stands for a digest of the whole file, which would take minutes to read: its size, its age and its two ends."""
    status = path.stat()
    found = hashlib.sha256(f"{status.st_size}:{status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        found.update(file.read(FINGERPRINTED))
        file.seek(max(0, status.st_size - FINGERPRINTED))
        found.update(file.read())
    return f"file:{found.hexdigest()}"
