"""The models that requests may name, as Ollama's endpoints describe them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from converter.errors import ConversionError
from converter.gguf_info import read_gguf_info
from server.errors import RequestError
from server.models.describe import details_of, in_short
from server.models.manifest import Details, meant
from server.models.projector import ARCHITECTURE as PROJECTOR_FAMILY
from server.models.projector import NO_PROJECTOR

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from server.models.manager import ModelManager
    from server.models.manifest import Manifest
    from server.models.resolve import ModelSource


_UNREADABLE = Details(architecture="unknown", parameters=0, quantization="unknown", context_length=0)


class ModelDetails(msgspec.Struct):
    """Ollama's short description of a model."""

    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    format: str = "gguf"
    parent_model: str = ""


@dataclass(frozen=True)
class Known:
    """A model that requests may name: in the store, or named at the start by its path.

    Attributes:
        path: of its GGUF file.
        digest: of that file, as 64 hexadecimal digits.
        size: of all its files, in bytes.
        projector: what reads images and sounds for it.
        manifest: what the store knows of it, if it is there.
    """

    name: str
    path: Path
    digest: str
    size: int
    modified: datetime
    details: Details
    projector: Path | None = None
    manifest: Manifest | None = None

    @property
    def described(self) -> ModelDetails:
        """Ollama's form of the details."""
        family = self.details.architecture
        families = [family, PROJECTOR_FAMILY] if self.projector else [family]
        return ModelDetails(family, families, in_short(self.details.parameters), self.details.quantization)


async def known_models(manager: ModelManager) -> dict[str, Known]:
    """Every model that requests may name, by its name."""
    return await asyncio.to_thread(_read, manager, manager.sources())


def _read(manager: ModelManager, sources: Sequence[ModelSource]) -> dict[str, Known]:
    """Those in the store and the wanted ones. Reads files."""
    found = {manifest.name: _stored(manifest, manager) for manifest in manager.store.list()}
    for source in sources:
        stored = found.get(source.name)
        found[source.name] = replace(stored, projector=source.projector) if stored else _from_path(source)
    return found


async def known_model(manager: ModelManager, name: str) -> Known:
    """The model of that name. Raises RequestError: 404 where there is none."""
    models = await known_models(manager)
    if known := meant(name, models):
        return models[known]
    raise RequestError(f"model '{name}' not found", status=404, code="model_not_found", param="model")


def _stored(manifest: Manifest, manager: ModelManager) -> Known:
    projector = None if manager.projector_wish == NO_PROJECTOR else manifest.projector
    return Known(
        name=manifest.name,
        path=manager.store.blob_path(manifest.digest),
        digest=manifest.digest.split(":")[-1],
        size=manifest.size,
        modified=manifest.created,
        details=manifest.details,
        projector=manager.store.blob_path(projector.digest) if projector else None,
        manifest=manifest,
    )


def _from_path(source: ModelSource) -> Known:
    try:
        status = source.path.stat()
        size = status.st_size + (source.projector.stat().st_size if source.projector else 0)
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        details = details_of(read_gguf_info(source.path))
    except (OSError, ConversionError):  # moved or removed since it was loaded; it can still answer
        size, modified, details = 0, datetime.now(UTC), _UNREADABLE
    return Known(
        name=source.name,
        path=source.path,
        digest=source.digest.split(":")[-1],
        size=size,
        modified=modified,
        details=details,
        projector=source.projector,
    )
