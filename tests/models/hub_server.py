"""A hub on this machine: the endpoints that huggingface_hub asks, over files in memory, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from pathlib import Path

NAME = "maker/Tiny-GGUF"
FILE = "Tiny-Q4_K_M.gguf"
"""What tests pull, unless they name another."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = 4096
"""Files up to this size lie in Git itself, without a SHA-256 that the hub tells."""
PIECE = 64 * 1024
"""Bytes that are sent at a time."""


@dataclass
class FakeHub:
    """What the hub holds and how it behaves.

    Attributes:
        repositories: files by their names, by OWNER/REPOSITORY.
        gated: what only `token` may read.
        cut_after: connections are cut after so many bytes of a file, as often as `cuts` says.
        pause: seconds between two pieces of a file.
        ranges: whether a file can be had from its middle on.
        elsewhere: whether files lie on another host, to which the hub redirects.
        strangers_saw: tokens that were sent to that other host.
        lies: files whose content is another than the hub tells.
        status: what every request is refused with; 0 refuses none.
        requests: method, path and Range of each request so far.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    gated: set[str] = field(default_factory=set[str])
    token: str = "hf_right"
    status: int = 0
    cut_after: int = 0
    cuts: int = 0
    pause: float = 0.0
    ranges: bool = True
    elsewhere: bool = False
    strangers_saw: list[str] = field(default_factory=list[str])
    lies: set[str] = field(default_factory=set[str])
    requests: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    url: str = ""

    def start(self) -> ThreadingHTTPServer:
        """Answer from now on; `url` tells where."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    @property
    def received(self) -> list[tuple[str, str]]:
        """Name and Range of each file that was asked for."""
        return [(path.rpartition("/")[2], range_) for _, path, range_ in self.requests if "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.hub.requests.append((self.command, path.partition("?")[0], self.headers.get("Range", "")))
        if self.hub.status:
            return self._answer(self.hub.status)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/?]+)\?blobs=[Tt]rue", path):
            return self._describe(match[1])
        if match := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path):
            return self._give(match[1], match[2])
        if match := re.fullmatch(r"/elsewhere/([^/]+/[^/]+)/(.+)", path):
            self.hub.strangers_saw += self.headers.get_all("Authorization", [])
            return self._send_file(self.hub.repositories[match[1]][match[2]])
        return self._answer(404)

    def _describe(self, name: str) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            return self._answer(401, {"X-Error-Code": "RepoNotFound"})  # as the hub tells strangers
        siblings: list[dict[str, Any]] = []
        for file, data in files.items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            if len(data) > SMALL:
                entry["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
            siblings.append(entry)
        body = {
            "id": name,
            "sha": COMMIT,
            "siblings": siblings,
            "private": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
        }
        return self._answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _give(self, name: str, file: str) -> None:
        if name in self.hub.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._answer(401, {"X-Error-Code": "GatedRepo"})
        data = self.hub.repositories.get(name, {}).get(file)
        if data is None:
            return self._answer(404, {"X-Error-Code": "EntryNotFound"})
        if file in self.hub.lies:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if self.hub.elsewhere:
            other = self.hub.url.replace("127.0.0.1", "localhost")
            return self._answer(302, {"Location": f"{other}/elsewhere/{name}/{file}"})
        return self._send_file(data)

    def _send_file(self, data: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.hub.ranges else None
        start = int(match[1]) if match else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if match else {}
        return self._answer(206 if match else 200, headers, data[start:])

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not self.path.startswith("/api/") and self.hub.cuts and 0 < self.hub.cut_after < len(body):
            self.hub.cuts -= 1
            body = body[: self.hub.cut_after]
            self.close_connection = True
        try:
            for start in range(0, len(body), PIECE):
                self.wfile.write(body[start : start + PIECE])
                time.sleep(self.hub.pause)
        except ConnectionError:
            self.close_connection = True  # whoever asked has gone

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def files_in(folder: Path) -> set[str]:
    """Names of all files, but the store's lock."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
