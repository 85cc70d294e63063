"""The models on this machine: blobs named by their content's digest, and a manifest for each name.

    models/blobs/sha256-...          a file; many names may share it
    models/manifests/NAME@TAG.json   a `Manifest`
    models/staging/...               files on their way in, in a folder of their own for each process
    models/lock                      held by whoever changes something

Readers take no lock: a manifest is replaced in one step. Whoever changes something holds the lock for that moment, and,
while holding it, clears away what an interrupted process left behind: staging folders that nobody holds, and blobs that
no manifest names.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import platformdirs
from msgspec import structs

from server.errors import BrimError
from server.locks import is_locked, locked
from server.models.files import Progress, bring, sha256, sync, write_whole
from server.models.manifest import Blob, Manifest, Model, ModelName, decode, encode, names_repository

if TYPE_CHECKING:
    from collections.abc import Generator

PRIVATE = 0o700


class ModelNotFoundError(BrimError):
    """No model of that name is in the store."""


class DamagedManifestError(BrimError):
    """A manifest cannot be read."""


def home() -> Path:
    """Where brim keeps its data: `BRIM_HOME`, else the user's data folder."""
    return Path(os.environ.get("BRIM_HOME") or platformdirs.user_data_dir("brim")).expanduser()


class Store:
    """The models under one folder.

    Args:
        root: the folder; it is made, with mode 0700, when the first model comes in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._manifests = root / "manifests"
        self._staging = root / "staging"
        self._lock = root / "lock"

    @classmethod
    def default(cls) -> Store:
        """The store under `home()`."""
        return cls(home() / "models")

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Manifest:
        """The model of that name, as `name` or `name:tag`.

        Raises:
            ModelNotFoundError: there is none; the message suggests a similar one.
            DamagedManifestError: its manifest cannot be read.
            BrimError: it cannot be a name.
        """
        path = self._manifest_path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise self._not_found(name) from None
        except OSError as error:
            raise DamagedManifestError(f"{path} cannot be read: {error.strerror}") from error
        try:
            return decode(data)
        except (ValueError, msgspec.MsgspecError) as error:
            raise DamagedManifestError(
                f"the manifest of {name} is damaged: {error}; `brim rm {name}` removes it ({path})"
            ) from None

    def __contains__(self, name: str) -> bool:
        """Whether the store has a model of that name, damaged or not."""
        return self._manifest_path(name).is_file()

    def list(self) -> list[Manifest]:
        """All models whose manifests can be read, by name. `damaged` tells of the others."""
        return self._read_all()[0]

    def damaged(self) -> list[str]:
        """One sentence for each manifest that cannot be read."""
        return self._read_all()[1]

    def blob_path(self, digest: str) -> Path:
        """Where the file with that digest lies, if the store has it."""
        return self._blobs / digest.replace(":", "-")

    def model_path(self, manifest: Manifest) -> Path:
        """The model's GGUF file.

        Raises:
            BrimError: one of the model's files is gone, or has another size than it had.
        """
        for blob in manifest.blobs:
            self._check_presence(manifest, blob)
        return self.blob_path(manifest.digest)

    def find(self, made_from: str) -> Model | None:
        """The GGUF file that was made from just this (see `Model.made_from`), if the store has it."""
        models = (model for manifest in self.list() for model in manifest.models)
        return next((m for m in models if m.made_from == made_from and self.blob_path(m.digest).is_file()), None)

    def with_digest(self, digest: str) -> Model | None:
        """The GGUF file with that digest, if the store has it."""
        models = (model for manifest in self.list() for model in manifest.models)
        return next((m for m in models if m.digest == digest and self.blob_path(digest).is_file()), None)

    def verify(self, name: str, progress: Progress | None = None) -> None:
        """Read a model's files again and compare them with their digests.

        Args:
            name: the model.
            progress: called with bytes read and bytes in all, for each file.

        Raises:
            BrimError: a file is gone or no longer what it was.
        """
        manifest = self.get(name)
        for blob in manifest.blobs:
            path = self._check_presence(manifest, blob)
            if sha256(path, progress) != blob.digest:
                raise BrimError(f"{path} of {name} has changed since it was stored; create the model anew")

    # -- changing ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def staging(self) -> Generator[Staging]:
        """A folder on the store's file system to make files in. Unless they are committed, nothing of them remains."""
        with self._changing():
            folder = Path(tempfile.mkdtemp(dir=self._staging))
            held = contextlib.ExitStack()
            held.enter_context(locked(folder))
        with held:
            try:
                yield Staging(self, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def copy(self, source: str, target: str) -> Manifest:
        """Give a model a second name; the files are shared. A model that had the name loses it."""
        manifest = structs.replace(self.get(source), name=str(ModelName.parse(target)), bundled=False)
        with self._changing():
            self._put(manifest)
        return manifest

    def remove(self, name: str) -> None:
        """Remove a name, and the files that no other name has.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        path = self._manifest_path(name)
        if not path.exists():
            raise self._not_found(name)
        with self._changing():
            path.unlink(missing_ok=True)
            sync(self._manifests)

    def commit(self, manifest: Manifest, staged: dict[str, Path]) -> None:
        """Bring staged files (by digest) and their manifest in, all or nothing. For `Staging.commit`."""
        with self._changing():
            for digest, path in staged.items():
                if not self.blob_path(digest).is_file():
                    path.replace(self.blob_path(digest))
            sync(self._blobs)
            self._put(manifest)

    # -- within --------------------------------------------------------------------------------------------------------

    def _manifest_path(self, name: str) -> Path:
        return self._manifests / ModelName.parse(name).file_name

    def _not_found(self, name: str) -> ModelNotFoundError:
        if names_repository(name):
            return ModelNotFoundError(f"there is no model {name!r} in the store; `brim pull {name}` fetches it")
        names = [manifest.name for manifest in self.list()]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else "`brim list` shows those there are"
        return ModelNotFoundError(f"there is no model {name!r} in the store; {hint}")

    def _read_all(self) -> tuple[list[Manifest], list[str]]:
        models: list[Manifest] = []
        damaged: list[str] = []
        for path in sorted(self._manifests.glob("*@*.json")):
            try:
                models.append(self.get(ModelName.in_file_name(path.name)))
            except ModelNotFoundError:
                pass  # removed since the folder was listed
            except BrimError as error:
                damaged.append(str(error))
        return models, damaged

    def _check_presence(self, manifest: Manifest, blob: Blob) -> Path:
        path = self.blob_path(blob.digest)
        if not path.is_file():
            raise BrimError(f"{path} of {manifest.name} is gone; create the model anew")
        size = path.stat().st_size
        if size != blob.size:
            raise BrimError(
                f"{path} of {manifest.name} has {size:,} bytes, and {blob.size:,} when it was stored; create it anew"
            )
        return path

    def _put(self, manifest: Manifest) -> None:
        for blob in manifest.blobs:
            self._check_presence(manifest, blob)
        write_whole(self._manifest_path(manifest.name), encode(manifest))

    @contextlib.contextmanager
    def _changing(self) -> Generator[None]:
        """Hold the store's lock, and leave no garbage behind."""
        try:
            for folder in (self.root.parent, self.root, self._blobs, self._manifests, self._staging):
                folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            self._lock.touch()
            with locked(self._lock):
                yield
                self._sweep()
        except OSError as error:
            raise BrimError(f"the store in {self.root} cannot be changed: {error.strerror}") from error

    def _sweep(self) -> None:
        for folder in self._staging.iterdir():
            with contextlib.suppress(FileNotFoundError):  # its owner has just finished and removed it
                if not is_locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        for part in self._manifests.glob(".*.part"):
            part.unlink()
        models, damaged = self._read_all()
        if damaged:
            return  # who knows which blobs they name
        named = {blob.digest for manifest in models for blob in manifest.blobs}
        for path in self._blobs.glob("sha256-*"):
            if path.name.replace("-", ":", 1) not in named:
                path.unlink()


class Staging:
    """Files on their way into the store.

    Attributes:
        folder: where to make files that are to come in; it is removed in the end with all that is left in it.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.folder = folder
        self._store = store
        self._staged: dict[str, Path] = {}

    def put_file(self, path: Path, *, move: bool = False, progress: Progress | None = None) -> Blob:
        """Take a file in: renamed if `move`, else sharing the original's blocks where that is possible, else copied.

        Args:
            path: the file.
            move: whether it may go from where it is.
            progress: called with bytes hashed and bytes in all.

        Raises:
            BrimError: it cannot be read, or the disk is full.
        """
        staged = self.folder / f"blob-{len(self._staged)}"
        try:
            bring(path, staged, move=move)
            digest = sha256(staged, progress)
            sync(staged)
        except OSError as error:
            raise BrimError(f"{path} cannot be taken into the store: {error.strerror}") from error
        self._staged[digest] = staged
        return Blob(digest=digest, size=staged.stat().st_size)

    def commit(self, manifest: Manifest) -> None:
        """Bring the files and the manifest that names them into the store, in the place of one that has the name.

        Raises:
            BrimError: a file that the manifest names is neither staged nor in the store, or the disk is full.
        """
        self._store.commit(manifest, self._staged)
        self._staged = {}
