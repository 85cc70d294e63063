"""Brings a model from the Hugging Face hub into the store: fetches a GGUF file, or a checkpoint and converts it.

What has been received is kept in `downloads`, beside the store, until the model is complete: an interrupted pull leaves
nothing in the store, and the next one goes on where it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast

from msgspec import structs

from converter.architectures import find_architecture
from converter.checkpoint import read_json_object
from converter.gguf_info import read_gguf_info
from converter.quantization import Quantization, parse_quantization
from server.errors import BrimError
from server.locks import is_locked, locked
from server.models.choosing import checkpoint_files, choose, choose_projector
from server.models.create import plain_errors, require_language_model
from server.models.describe import details_of, in_bytes
from server.models.files import sha256
from server.models.hub import Hub, HubError
from server.models.manifest import DEFAULT_TAG, SCHEMA_VERSION, Manifest, Model, ModelName
from server.models.parameters import Parameters
from server.models.projector import ARCHITECTURE, read_projector
from server.models.sources import made_from, sampling_defaults
from server.models.split import join
from server.models.store import PRIVATE, DamagedManifestError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from server.models.create import Progress
    from server.models.hub import RemoteFile, Repository
    from server.models.store import Staging, Store

DEFAULT_TYPE = "Q4_K_M"
"""What a checkpoint is converted to where the name does not say."""
KEPT_FOR = 7 * 24 * 3600.0
"""Seconds for which an unfinished download is kept."""
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Order:
    """What a name stands for on the hub at this moment.

    Attributes:
        name: what the model is called in the store.
        repository: where it comes from.
        files: what is fetched: a GGUF file, its parts, or a checkpoint.
        target: the type that a checkpoint is converted to; None where the files are GGUF.
        projector: the multimodal projector that comes with it, if there is one.
    """

    name: ModelName
    repository: Repository
    files: tuple[RemoteFile, ...]
    target: Quantization | None
    projector: RemoteFile | None = None

    @property
    def digest(self) -> str:
        """Stands for all that the model is made from: of one GGUF file, its own digest."""
        if len(self.files) == 1:
            return self.files[0].content
        contents = "\n".join(f"{file.name} {file.content}" for file in self.files)
        return f"sha256:{hashlib.sha256(contents.encode()).hexdigest()}"

    @property
    def made_from(self) -> str:
        """What the store knows the outcome by."""
        return made_from(self.digest, self.target.name if self.target else None)

    @property
    def made_bytes(self) -> float:
        """About how many bytes are written besides what is received: a joined or converted file."""
        size = sum(file.size for file in self.files)
        if self.target is None:
            return size if len(self.files) > 1 else 0
        of_two_bytes = self.target.tensor_type.block_bytes / self.target.tensor_type.block_size / 2
        return size * of_two_bytes

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        place = f"hf:{self.repository.name}"
        return place if self.target else f"{place}:{PurePosixPath(self.files[0].name).name}"


@dataclass(frozen=True)
class _Present:
    """What the store has of an order before anything is fetched."""

    model: Model | None
    projector: Model | None

    def lacks(self, order: Order) -> tuple[RemoteFile, ...]:
        """What is to be fetched: the projector is taken with a model, and where only it is missing, alone."""
        projector = (order.projector,) if order.projector and not self.projector else ()
        return projector if self.model else (*order.files, *projector)


def look_up(text: str, hub: Hub | None = None) -> Order:
    """Ask the hub what a name stands for.

    Args:
        text: `hf:OWNER/REPOSITORY`, perhaps with a GGUF file's name or a quantization type after a colon. The latter
            chooses among GGUF files; a repository that has none is converted to it.
        hub: whom to ask.

    Raises:
        HubError: the hub does not give it.
        BrimError: it is no such name, or there is nothing in the repository that fits.
    """
    name = ModelName.parse(text)
    if name.repository is None:
        raise BrimError(
            f"{text!r} is no model on the hub: write hf:OWNER/REPOSITORY, and perhaps :FILE or :QUANTIZATION"
        )
    repository = (hub or Hub()).look_up(name.repository)
    choice = None if name.tag == DEFAULT_TAG else name.tag
    projector = choose_projector(repository)
    if files := choose(repository, choice):
        return Order(name, repository, files, None, projector)
    files = checkpoint_files(repository)
    with plain_errors():
        return Order(name, repository, files, parse_quantization(choice or DEFAULT_TYPE), projector)


def pull(store: Store, order: Order, progress: Progress | None = None, hub: Hub | None = None) -> Manifest:
    """Have a model of the hub in the store, as it is there now. What the store has already is not fetched again.

    Args:
        store: where it goes.
        order: what to fetch.
        progress: called while files are received, joined, converted and hashed.
        hub: where to fetch from.

    Raises:
        HubError: the hub does not give it, or the connection is lost for good.
        BrimError: the disk has no room for it, it is being fetched already, or the files cannot be used.
    """
    known = _look_for(store, order)
    if known.model is None or known.lacks(order):
        return _fetch(store, order, known, progress, hub or Hub())
    manifest = _manifest(store, order, known.model, known.projector, Parameters())
    with store.staging() as staging:
        staging.commit(manifest)
    return manifest


def _look_for(store: Store, order: Order) -> _Present:
    file = order.projector
    model = store.find(order.made_from) or store.with_digest(order.digest)
    projector = store.find(made_from(file.content, None)) or store.with_digest(file.content) if file else None
    return _Present(
        model=model if model and model.details.architecture != ARCHITECTURE else None,
        projector=projector if projector and projector.details.architecture == ARCHITECTURE else None,
    )


def _fetch(store: Store, order: Order, known: _Present, progress: Progress | None, hub: Hub) -> Manifest:
    with plain_errors(), _downloads(store, order) as folder:
        _require_room(folder, order, known)
        _receive(order, known.lacks(order), folder, progress, hub)
        with store.staging() as staging:
            model, projector = known.model, known.projector
            recommended = sampling_defaults(folder) if order.target and not model else Parameters()
            model = model or _take_model(order, folder, staging, progress)
            if order.projector and not projector:
                projector = _take_projector(order.projector, folder, staging, progress)
            manifest = _manifest(store, order, model, projector, recommended)
            staging.commit(manifest)
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _take_model(order: Order, folder: Path, staging: Staging, progress: Progress | None) -> Model:
    """Bring the model in, made from what has been received."""
    paths = [_place(folder, file) for file in order.files]
    made = _make(order, paths, staging.folder / "made.gguf", progress)
    blob = staging.put_file(made, progress=_stage(progress, "hashing"))
    if made in paths:
        _require_content(order.files[0], made, blob.digest)
    info = read_gguf_info(made)
    require_language_model(info, order.source)
    return Model(digest=blob.digest, size=blob.size, details=details_of(info), made_from=order.made_from)


def _take_projector(file: RemoteFile, folder: Path, staging: Staging, progress: Progress | None) -> Model:
    path = _place(folder, file)
    blob = staging.put_file(path, progress=_stage(progress, "hashing"))
    details = details_of(read_projector(path, file.name))
    return Model(digest=blob.digest, size=blob.size, details=details, made_from=made_from(file.content, None))


@contextlib.contextmanager
def _downloads(store: Store, order: Order) -> Generator[Path]:
    """The folder in which this order is received, held against other pulls of the same; old ones are cleared away."""
    downloads = store.root.parent / "downloads"
    folder = downloads / order.digest.rpartition(":")[2][:32]
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        for other in downloads.iterdir():
            if other.stat().st_mtime < time.time() - KEPT_FOR and not is_locked(other):
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(mode=PRIVATE, exist_ok=True)
        if is_locked(folder):
            raise BrimError(f"{order.name} is being fetched already; wait until that has ended")
        held = contextlib.ExitStack()
        held.enter_context(locked(folder))
    except OSError as error:
        raise BrimError(f"{error.filename or downloads} cannot be used for downloads: {error.strerror}") from error
    with held:
        yield folder


def _require_room(folder: Path, order: Order, known: _Present) -> None:
    """Raises BrimError where the disk has no room for what is missing and what is made of it."""
    there = sum(path.stat().st_size for path in folder.iterdir())
    needed = sum(file.size for file in known.lacks(order)) - there + (0 if known.model else int(order.made_bytes))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BrimError(
            f"{order.name} needs {in_bytes(needed)}, and the disk that holds {folder.parent} has {in_bytes(free)} free"
        )


def _receive(order: Order, files: tuple[RemoteFile, ...], folder: Path, progress: Progress | None, hub: Hub) -> None:
    """Fetch what is missing, small files first, so that what cannot be used is known before hours have passed."""
    done, size = 0, sum(file.size for file in files)

    def report(there: int, _: int) -> None:
        if progress:
            progress(f"fetching {order.name}", done + there, size)

    for file in sorted(files, key=lambda file: file.size):
        path = _place(folder, file)
        if not path.exists():
            part = folder / f"{path.name}.part"
            hub.fetch(order.repository, file, part, report)
            if order.target or len(order.files) > 1 or file == order.projector:
                _require_content(file, part, sha256(part))
            part.replace(path)
        done += file.size
        report(0, 0)
        if file.name == CONFIG:
            find_architecture(read_json_object(path))  # refuses those that cannot be converted
        if file.name == INDEX:
            _check_index(path, order)
        if file == order.projector:
            read_projector(path, file.name)  # refuses what is none


def _place(folder: Path, file: RemoteFile) -> Path:
    """Where a file lies when it has been received."""
    return folder / PurePosixPath(file.name).name


def _require_content(file: RemoteFile, path: Path, digest: str) -> None:
    """Raises HubError, and drops the file, where it is not what the hub told of. Small files have no digest there."""
    if file.content.startswith("sha256:") and digest != file.content:
        path.unlink()
        raise HubError(f"{file.name} has arrived damaged: its SHA-256 is not the one that the hub tells; pull again")


def _check_index(path: Path, order: Order) -> None:
    """Raises BrimError where a checkpoint's index names other files than those that come with it."""
    weight_map = cast("dict[str, str]", read_json_object(path).get("weight_map") or {})
    lacking = set(weight_map.values()) - {file.name for file in order.files}
    if lacking:
        raise BrimError(f"{order.repository.name} lacks {min(lacking)}, which its {INDEX} names")


def _make(order: Order, paths: list[Path], out: Path, progress: Progress | None) -> Path:
    """The model as one GGUF file: the one received, its parts joined, or the checkpoint converted."""
    if order.target:
        from converter.convert import convert

        report = _stage(progress, f"converting to {order.target.name}")
        name = order.repository.name.rpartition("/")[2]
        convert(paths[0].parent, out, order.target.name, name=name, progress=report)
        return out
    if len(paths) > 1:
        join(paths, out, _stage(progress, "joining the parts"))
        return out
    return paths[0]


def _manifest(store: Store, order: Order, model: Model, projector: Model | None, parameters: Parameters) -> Manifest:
    """What the store is to know; of a model that has the name already, all but its projector stays as it was."""
    with contextlib.suppress(ModelNotFoundError, DamagedManifestError):
        present = store.get(str(order.name))
        if present.digest == model.digest:
            return structs.replace(present, projector=projector)
    return Manifest(
        schema=SCHEMA_VERSION,
        name=str(order.name),
        model=model,
        source=order.source,
        created=datetime.now(UTC),
        parameters=parameters,
        projector=projector,
    )


def _stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(stage, done, total)) if progress else None
