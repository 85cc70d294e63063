"""What there is to tell of a model in the store, for people and for clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.gguf_info import read_gguf_info
from server.models.manifest import Details
from server.models.modelfile import Adapter, Modelfile, serialise

if TYPE_CHECKING:
    from converter.gguf_info import GGUFInfo
    from server.models.manifest import Manifest
    from server.models.store import Store


def details_of(info: GGUFInfo) -> Details:
    """What a GGUF file says of itself, in short."""
    from converter.quantization import file_type_name

    return Details(
        architecture=info.architecture,
        parameters=info.parameters,
        quantization=file_type_name(info.get("general.file_type", -1)),
        context_length=info.get(f"{info.architecture}.context_length", 0),
    )


def as_modelfile_text(store: Store, manifest: Manifest) -> str:
    """A Modelfile that makes the same model again; FROM names the stored file, so that nothing is inherited."""
    modelfile = Modelfile(
        source=str(store.model_path(manifest)),
        parameters=manifest.parameters,
        system=manifest.system,
        template=manifest.template,
        messages=manifest.messages,
        adapters=tuple(Adapter(str(store.blob_path(a.digest)), a.scale) for a in manifest.adapters),
        draft=str(store.blob_path(manifest.draft.digest)) if manifest.draft else None,
        projector=str(store.blob_path(manifest.projector.digest)) if manifest.projector else None,
        licenses=manifest.licenses,
    )
    return (
        f"# {manifest.name}, made from {manifest.source}. To inherit what it says instead of repeating it:\n"
        f"# FROM {manifest.name}\n\n{serialise(modelfile)}"
    )


def template_of(store: Store, manifest: Manifest) -> str | None:
    """The template that chats use: the Modelfile's, else the one in the GGUF file, if it has one."""
    if manifest.template:
        return manifest.template
    own = read_gguf_info(store.model_path(manifest)).get("tokenizer.chat_template")
    return None if own is None else str(own)


def in_bytes(size: int) -> str:
    """A size as people read it: `4.9 GB`, in powers of 1000."""
    value, unit = _scaled(size, ("B", "KB", "MB", "GB", "TB"))
    return f"{value} {unit}"


def in_short(count: int) -> str:
    """A count as people speak of it: `260K`, `1.2B`."""
    return "".join(_scaled(count, ("", "K", "M", "B", "T")))


def _scaled(number: float, units: tuple[str, ...]) -> tuple[str, str]:
    step = 0
    while number >= 999.5 and step < len(units) - 1:
        number /= 1000
        step += 1
    return (f"{number:.1f}".removesuffix(".0") if number < 99.95 else f"{number:.0f}"), units[step]
