"""Creates a model in the store from a Modelfile: converts, quantizes or takes the file, and writes the manifest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from converter.errors import ConversionError
from converter.quantization import Quantization, parse_quantization
from server.errors import BrimError, RequestError
from server.models.describe import details_of
from server.models.manifest import SCHEMA_VERSION, Manifest, Model, ModelName, StoredAdapter
from server.models.modelfile import Modelfile, parse
from server.models.parameters import Parameters
from server.models.projector import read_projector, refuse_projector
from server.models.resolve import ensure_pulled
from server.models.sources import Source, find_source, fingerprint, made_from, sampling_defaults
from server.models.store import DamagedManifestError

if TYPE_CHECKING:
    from collections.abc import Generator

    from converter.gguf_info import GGUFInfo
    from server.models.store import Staging, Store

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the bytes done and the bytes in all."""

MODELFILES = Path(__file__).parents[2] / "Modelfiles"
DEMO = "demo"

SMALL_PARAMETERS = 4_000_000_000
SMALL_TYPE = "Q8_0"
LARGE_TYPE = "Q4_K_M"
"""The types a checkpoint is converted to where the Modelfile says nothing: few bits cost small models more."""

NEARLY_LOSSLESS_BITS = 8
"""What has at least so many bits per weight may be quantized further."""


def create(
    store: Store,
    name: str,
    modelfile: Modelfile,
    folder: Path,
    *,
    file: str = "Modelfile",
    bundled: bool = False,
    progress: Progress | None = None,
    template_checked: bool = False,
) -> Manifest:
    """Create a model, in the place of one that has the name.

    What has been made before from the same is not made again. Interrupted at any point, nothing is left.

    Args:
        store: where it goes.
        name: `name` or `name:tag`.
        modelfile: what it is made from and how it behaves.
        folder: where the Modelfile's relative paths start from.
        file: what error messages call the Modelfile.
        bundled: whether this is the demo model that brim makes by itself.
        template_checked: whether `check_template` has found it good already.
        progress: called while files are converted and hashed.

    Raises:
        BrimError: something the Modelfile names is missing or cannot be used, or the store cannot be written.
    """
    model_name = ModelName.parse(name)
    if not template_checked:
        check_template(modelfile, file)
    with plain_errors(), store.staging() as staging:
        source = find_source(store, modelfile.source, folder)
        maker = _Maker(store, staging, model_name.name, progress)
        model = maker.make(source, modelfile.quantize)
        manifest = Manifest(
            schema=SCHEMA_VERSION,
            name=str(model_name),
            model=model,
            source=str(source),
            created=datetime.now(UTC),
            parameters=sampling_defaults(source.path) if source.is_checkpoint else Parameters(),
            bundled=bundled,
        )
        manifest = _with_words(_inherit(manifest, source.manifest), modelfile)
        if modelfile.adapters:
            adapters = tuple(maker.adapter(model, folder, a.path, a.scale) for a in modelfile.adapters)
            manifest = structs.replace(manifest, adapters=adapters)
        if modelfile.draft is not None:
            draft = maker.make(find_source(store, modelfile.draft, folder, "DRAFT"), None)
            manifest = structs.replace(manifest, draft=draft)
        if modelfile.projector is not None:
            manifest = structs.replace(manifest, projector=maker.projector(folder, modelfile.projector))
        if same := _unchanged(store, manifest):
            return same
        staging.commit(manifest)
    return manifest


def create_from_file(store: Store, name: str, path: Path, *, progress: Progress | None = None) -> Manifest:
    """Create a model from a Modelfile on disk; models on the hub that it names are fetched if they are not there.

    Raises:
        BrimError: as `create` and `ensure_pulled` do, and where the file cannot be read.
    """
    modelfile = read_modelfile(path)
    for origin in (modelfile.source, modelfile.draft):
        if origin is not None:
            ensure_pulled(origin, store, progress)
    return create(store, name, modelfile, path.parent, file=str(path), progress=progress)


def read_modelfile(path: Path) -> Modelfile:
    """Read a Modelfile from disk. Raises BrimError where it cannot be read or understood."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BrimError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BrimError(f"{path} is no text in UTF-8; is it a Modelfile?") from error
    return parse(text, str(path))


def ensure_demo(store: Store, progress: Progress | None = None) -> Manifest | None:
    """Have the bundled demo model in a store that would else be empty, as new as this brim is.

    Returns:
        The model named `demo`: made now, made anew because brim brings another checkpoint, or as it was. None where the
        store has models and no `demo`: whoever removed it does not want it back.

    Raises:
        BrimError: it cannot be made.
    """
    if DEMO in store:
        with contextlib.suppress(DamagedManifestError):  # a damaged one is made anew
            present = store.get(DEMO)
            if not present.bundled:
                return present
    elif store.list() or store.damaged():
        return None
    path = MODELFILES / DEMO / "Modelfile"
    return create(store, DEMO, read_modelfile(path), path.parent, file=str(path), bundled=True, progress=progress)


def default_type(parameters: int) -> str:
    """The quantization type for a checkpoint of so many weights, where the Modelfile names none."""
    return SMALL_TYPE if parameters < SMALL_PARAMETERS else LARGE_TYPE


def require_language_model(info: GGUFInfo, path: object) -> None:
    """Raises BrimError for the GGUF file of anything else, such as an adapter or a projector."""
    refuse_projector(info.architecture, path)
    if info.get("general.type", "model") != "model":
        raise BrimError(f"{path} is a GGUF file, but not a language model's")


class _Maker:
    """Makes GGUF files in a staging folder, unless the store has them."""

    def __init__(self, store: Store, staging: Staging, name: str, progress: Progress | None) -> None:
        self.store = store
        self.staging = staging
        self.name = name
        self.progress = progress

    def make(self, source: Source, wanted: str | None) -> Model:
        """The model's GGUF file, as a checkpoint converted, a file quantized, or one taken as it is."""
        from converter.convert import convert, quantize

        target = self._target(source, wanted)
        if source.manifest and target is None:
            return source.manifest.model
        origin = made_from(source.manifest.digest if source.manifest else fingerprint(source.path), target)
        if known := self.store.find(origin):
            return known
        out = self.staging.folder / "made.gguf"
        if target is None:
            out = source.path
        elif source.is_checkpoint:
            report = self._report(f"converting {source.path.name} to {target}")
            convert(source.path, out, target, name=self.name, progress=report)
        else:
            report = self._report(f"quantizing {source} to {target}")
            quantize(source.path, out, target, allow_requantize=True, progress=report)
        details = details_of(_read_info(out))
        blob = self.staging.put_file(out, move=target is not None, progress=self._report("hashing"))
        return Model(digest=blob.digest, size=blob.size, details=details, made_from=origin)

    def adapter(self, model: Model, folder: Path, text: str, scale: float) -> StoredAdapter:
        """A LoRA adapter's file."""
        source = find_source(self.store, text, folder, "ADAPTER")
        if source.is_checkpoint:
            raise BrimError(f"ADAPTER {text} is a folder; brim takes adapters as GGUF files")
        info = _read_info(source.path)
        if info.get("general.type") != "adapter":
            raise BrimError(f"ADAPTER {text} is a GGUF file, but not an adapter")
        if info.architecture != model.details.architecture:
            raise BrimError(
                f"ADAPTER {text} is for the architecture {info.architecture}, and the model is "
                f"{model.details.architecture}"
            )
        blob = self.staging.put_file(source.path, progress=self._report("hashing"))
        return StoredAdapter(digest=blob.digest, size=blob.size, scale=scale)

    def projector(self, folder: Path, text: str) -> Model:
        """A multimodal projector's file, taken as it is."""
        path = Path(os.path.abspath(folder / Path(text).expanduser()))
        info = read_projector(path)
        origin = made_from(fingerprint(path), None)
        if known := self.store.find(origin):
            return known
        blob = self.staging.put_file(path, progress=self._report("hashing"))
        return Model(digest=blob.digest, size=blob.size, details=details_of(info), made_from=origin)

    def _target(self, source: Source, wanted: str | None) -> str | None:
        """The type to write, or None where the source's file serves as it is."""
        if source.is_checkpoint:
            from converter.checkpoint import open_checkpoint

            tensors = open_checkpoint(source.path).tensors.values()
            return wanted or default_type(sum(prod(tensor.shape) for tensor in tensors))
        info = _read_info(source.path)
        require_language_model(info, source.path)
        if info.get("split.count", 1) > 1:
            raise BrimError(f"{source.path} is one part of a split model; merge its parts with llama-gguf-split first")
        if wanted is None or details_of(info).quantization == wanted:
            return None
        _check_requantizing(source, info, parse_quantization(wanted))
        return wanted

    def _report(self, stage: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return (lambda done, total: progress(stage, done, total)) if progress else None


def _check_requantizing(source: Source, info: GGUFInfo, target: Quantization) -> None:
    """Refuse what would make a file larger without making it better, or lose quality twice."""
    has = details_of(info).quantization
    known = Quantization.__members__.get(has)
    bits = _bits(known) if known else info.bits_per_weight
    if _bits(target) > bits:
        raise BrimError(
            f"{source} holds {has}, and QUANTIZE {target.name} would make it larger but not better; "
            "leave QUANTIZE out, or start from the original checkpoint"
        )
    if bits < NEARLY_LOSSLESS_BITS:
        raise BrimError(
            f"{source} holds {has}, and quantizing it once more to {target.name} would lose more than quantizing the "
            "original: let FROM name the checkpoint, or a GGUF file of 8 bits or more"
        )


def _bits(quantization: Quantization) -> float:
    """Bits per weight of a type's matrices."""
    tensor_type = quantization.tensor_type
    return tensor_type.block_bytes * 8 / tensor_type.block_size


def _read_info(path: Path) -> GGUFInfo:
    from converter.gguf_info import read_gguf_info

    return read_gguf_info(path)


def _inherit(manifest: Manifest, parent: Manifest | None) -> Manifest:
    """What FROM a model in the store brings along besides its file."""
    if parent is None:
        return manifest
    return structs.replace(
        manifest,
        parameters=parent.parameters,
        system=parent.system,
        template=parent.template,
        messages=parent.messages,
        adapters=parent.adapters,
        draft=parent.draft,
        projector=parent.projector,
        licenses=parent.licenses,
    )


def _with_words(manifest: Manifest, modelfile: Modelfile) -> Manifest:
    """What the Modelfile itself says goes before what FROM brought along."""
    return structs.replace(
        manifest,
        parameters=modelfile.parameters.over(manifest.parameters),
        system=manifest.system if modelfile.system is None else modelfile.system,
        template=(manifest.template if modelfile.template is None else modelfile.template) or None,
        messages=modelfile.messages or manifest.messages,
        licenses=modelfile.licenses or manifest.licenses,
    )


def check_template(modelfile: Modelfile, file: str) -> None:
    """Try the template that a Modelfile brings, if it does. Raises BrimError where it cannot be used."""
    if not modelfile.template:
        return
    from server.chat.template_process import check

    try:
        check(modelfile.template)
    except RequestError as error:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise  # the machine's fault
        raise BrimError(f"{file}: TEMPLATE: {error}") from error


def _unchanged(store: Store, manifest: Manifest) -> Manifest | None:
    """The model in the store that already is what `manifest` describes, if it is there and whole."""
    try:
        present = store.get(manifest.name)
        store.model_path(present)
    except BrimError:
        return None
    return present if present == structs.replace(manifest, created=present.created) else None


@contextlib.contextmanager
def plain_errors() -> Generator[None]:
    """The converter's errors as the server's own."""
    try:
        yield
    except ConversionError as error:
        raise BrimError(str(error).rstrip(".")) from error
