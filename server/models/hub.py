"""The Hugging Face hub: what a repository holds, one file of it, and one clear sentence for all that can go wrong.

The protocol is huggingface_hub's, which also knows the user's token and endpoint (HF_TOKEN, HF_ENDPOINT). Files are
received here rather than by its `hf_hub_download`, which begins anew each time that it is called: a large model takes
hours on a slow line.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType] -- a dict in its signature says not of what
    get_session,
    hf_raise_for_status,
)

import server
from server.errors import BrimError
from server.models.files import sync

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from server.models.files import Progress

constants.HF_HUB_DISABLE_TELEMETRY = True  # its requests would tell what else runs on this machine, and ask how to tell

PATIENCE = 30.0
"""Seconds in which the hub answers, or sends the next bytes."""
RETRIES = 5
"""How often in a row a connection may fail without having brought anything."""
PAUSE = 1.0
"""Seconds before a connection is made again."""


class HubError(BrimError):
    """The hub does not give what was asked for. `missing` tells whether there is no such thing."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True)
class RemoteFile:
    """A file in a repository.

    Attributes:
        name: its path there.
        size: in bytes.
        content: stands for its content: `sha256:` and its SHA-256 where the hub tells it, as it does of large files,
            else `git:` and its id in Git.
    """

    name: str
    size: int
    content: str


@dataclass(frozen=True)
class Repository:
    """A model's repository as it was at one commit."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]


class Hub:
    """The hub, asked in the user's name.

    Args:
        endpoint: its address; by default HF_ENDPOINT, else https://huggingface.co.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self._api = HfApi(endpoint=endpoint, library_name="brim", library_version=server.__version__)
        self.endpoint = self._api.endpoint

    def look_up(self, name: str) -> Repository:
        """What the repository OWNER/REPOSITORY holds now.

        Raises:
            HubError: there is none, it may not be read, or the hub cannot be reached.
        """
        with self._in_plain_words(name):
            info = self._api.model_info(name, files_metadata=True, timeout=PATIENCE)
        files = tuple(
            RemoteFile(
                name=file.rfilename,
                size=file.size or 0,
                content=f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}",
            )
            for file in info.siblings or ()
        )
        return Repository(name, info.sha or "main", files)

    def fetch(self, repository: Repository, file: RemoteFile, part: Path, progress: Progress | None = None) -> None:
        """Receive a file, going on where `part` ends if it is there.

        Args:
            repository: where it lies.
            file: which one.
            part: what is written, and kept if it does not come to the end.
            progress: called with the bytes that are there and the bytes in all.

        Raises:
            HubError: the file may not be read, or is another than was told, or the hub cannot be reached any more.
            BrimError: it cannot be written.
        """
        failures, furthest = 0, _size(part)
        with self._in_plain_words(repository.name):
            while _size(part) != file.size or not part.exists():
                try:
                    self._receive(repository, file, part, progress)
                except httpx2.TransportError:
                    failures = 0 if _size(part) > furthest else failures + 1
                    furthest = max(furthest, _size(part))
                    if failures > RETRIES:
                        raise
                    time.sleep(PAUSE)
            sync(part)

    def _receive(self, repository: Repository, file: RemoteFile, part: Path, progress: Progress | None) -> None:
        """Receive what is missing over one connection."""
        url = hf_hub_url(repository.name, file.name, revision=repository.commit, endpoint=self.endpoint)
        user = build_hf_headers(library_name="brim", library_version=server.__version__)
        headers = {**user, "Accept-Encoding": "identity"}  # compressed, it could not be resumed
        there = _size(part)
        if there:
            headers["Range"] = f"bytes={there}-"
        with get_session().stream("GET", url, headers=headers, timeout=PATIENCE) as response:
            hf_raise_for_status(response)
            if not response.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
                there = 0  # it comes from the start
            with part.open("ab" if there else "wb") as out:
                for chunk in response.iter_bytes():
                    out.write(chunk)
                    there += len(chunk)
                    if there > file.size:
                        break
                    if progress:
                        progress(there, file.size)
        if there != file.size:
            part.unlink()
            raise HubError(f"the hub sent another {file.name} than the {file.size:,} bytes it told of; pull again")

    @contextmanager
    def _in_plain_words(self, name: str) -> Generator[None]:
        """Whatever goes wrong with a repository, in one sentence."""
        try:
            yield
        except HFValidationError as error:
            raise HubError(f"{name} cannot be a repository on the hub", missing=True) from error
        except OfflineModeIsEnabled as error:
            raise HubError(f"{name} cannot be fetched while HF_HUB_OFFLINE is set; unset it") from error
        except HfHubHTTPError as error:
            raise self._refusal(name, error) from error
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise HubError(f"the hub at {self.endpoint} cannot be reached for {name}: {reason}") from error
        except OSError as error:
            raise BrimError(f"{error.filename or name} cannot be written: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise HubError(f"{self.endpoint} does not answer as a hub does; check HF_ENDPOINT") from error

    def _refusal(self, name: str, error: HfHubHTTPError) -> HubError:
        status = error.response.status_code
        if isinstance(error, GatedRepoError):
            return HubError(
                f"{name} is gated: accept its terms at {self.endpoint}/{name}, and set HF_TOKEN to a token of yours"
            )
        if isinstance(error, EntryNotFoundError):
            return HubError(f"{name} has changed meanwhile and lacks a file; pull again", missing=True)
        if isinstance(error, RepositoryNotFoundError) or status == 404:
            return HubError(
                f"there is no repository {name} on the hub; if it is private, set HF_TOKEN to a token that may read it",
                missing=True,
            )
        if status in (401, 403):
            return HubError(f"the hub refuses {name} ({status}): set HF_TOKEN to a token that may read it")
        if status == 429:
            return HubError(f"the hub has had too many requests and refuses {name}; wait, or set HF_TOKEN")
        return HubError(f"the hub at {self.endpoint} fails with status {status} for {name}; try again later")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
