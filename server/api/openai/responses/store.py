"""Keeps responses, so that later ones can go on from them: a SQLite file that only its owner can read.

A response is kept as what it says of itself, and as its items: those of its own input, and those of its output. The
conversation before it is found by following `previous` back. A conversation that goes on counts as used, from its
first response on; what was not used for long is removed, and first of all where space runs out.

Every call opens the file anew: calls come from several threads, and at most some a second.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

DAY = 86_400.0
MOST_RESPONSES = 100_000
BUSY_SECONDS = 10.0
RETRY_SECONDS = 0.01
VERSION = 1
PREVIOUS_NOT_FOUND = "previous_response_not_found"

_SCHEMA = """
CREATE TABLE responses (
    id TEXT PRIMARY KEY, partition TEXT NOT NULL, previous TEXT, used REAL NOT NULL, size INTEGER NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX responses_by_use ON responses (used, size);
CREATE TABLE items (
    response TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE, position INTEGER NOT NULL,
    id TEXT NOT NULL, output INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (response, position)
) WITHOUT ROWID;
CREATE INDEX items_by_id ON items (id);
"""
_CHAIN = """
WITH RECURSIVE chain (id, previous, depth) AS (
    SELECT id, previous, 0 FROM responses WHERE id = :id AND partition = :partition AND used > :since
    UNION ALL
    SELECT r.id, r.previous, depth + 1 FROM responses r JOIN chain c ON r.id = c.previous
    WHERE r.partition = :partition AND r.used > :since
)
SELECT id, previous FROM chain ORDER BY depth DESC
"""
_REMOVE_OLDEST = """
DELETE FROM responses WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(size) OVER newest AS bytes, count(*) OVER newest AS number FROM responses
        WINDOW newest AS (ORDER BY used DESC, id ROWS UNBOUNDED PRECEDING)
    ) WHERE bytes > :bytes OR number > :number
)
"""

Json = dict[str, Any]


class Kept(Struct, frozen=True):
    """A response as it is kept: `body` is the response object without its output."""

    body: Json
    input: list[Json]
    output: list[Json]


class ResponseStore:
    """The kept responses of all callers. A caller sees those of its own partition only.

    Args:
        path: the file; it is made with mode 0600 when the first response is kept.
        days: how long a response is kept after it was made or last gone on from.
        most_bytes: of bodies and items together.
    """

    def __init__(self, path: Path, *, days: float, most_bytes: int) -> None:
        self._path = path
        self._days = days
        self._most_bytes = most_bytes

    def save(self, kept: Kept, partition: str) -> None:
        """Keep a response; others are removed where they are too old, or too much.

        Raises:
            RequestError: the file cannot be written, or the response alone is larger than all may be.
        """
        body = msgspec.json.encode(kept.body)
        both = [(item, False) for item in kept.input] + [(item, True) for item in kept.output]
        items = [(item["id"], output, msgspec.json.encode(item)) for item, output in both]
        size = len(body) + sum(len(encoded) for _, _, encoded in items)
        if size > self._most_bytes:
            raise RequestError(f"the response has {size} bytes, more than may be kept: {self._most_bytes}", status=507)
        name = kept.body["id"]
        with self._opened(make=True) as db:
            row = (name, partition, kept.body.get("previous_response_id"), time.time(), size, body)
            db.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?)", row)
            rows = [(name, position, *item) for position, item in enumerate(items)]
            db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)
            db.execute("DELETE FROM responses WHERE used <= ?", (self._since(),))
            db.execute(_REMOVE_OLDEST, {"bytes": self._most_bytes, "number": MOST_RESPONSES})

    def load(self, name: str, partition: str) -> Kept:
        """A kept response. Raises RequestError (404) where there is none of that id, or only somebody else's."""
        with self._opened() as db:
            row = self._find(db, name, partition)
            items: dict[int, list[Json]] = {0: [], 1: []}
            for output, body in db.execute(
                "SELECT output, body FROM items WHERE response = ? ORDER BY position", (name,)
            ):
                items[output].append(msgspec.json.decode(body))
            return Kept(msgspec.json.decode(row), items[0], items[1])

    def conversation(self, name: str, partition: str) -> list[Json]:
        """All items up to a response and with its own, and count them as used.

        Raises:
            RequestError: it is not kept (404), or one that it goes on from no longer is.
        """
        with self._opened() as db:
            chain = db.execute(_CHAIN, {"id": name, "partition": partition, "since": self._since()}).fetchall()
            if not chain:
                raise _not_found(name, code=PREVIOUS_NOT_FOUND, param="previous_response_id")
            if missing := chain[0][1]:
                raise RequestError(
                    f"the response '{name}' goes on from '{missing}', which is no longer kept; send the whole "
                    "conversation as input",
                    status=404,
                    code=PREVIOUS_NOT_FOUND,
                    param="previous_response_id",
                )
            found: list[Json] = []
            for response, _ in chain:
                bodies = db.execute("SELECT body FROM items WHERE response = ? ORDER BY position", (response,))
                found += [msgspec.json.decode(body) for (body,) in bodies]
            used = [(time.time(), response) for response, _ in chain]
            db.executemany("UPDATE responses SET used = ? WHERE id = ?", used)
            return found

    def item(self, name: str, partition: str) -> Json:
        """An item of a kept response, by its id. Raises RequestError (404) where there is none."""
        query = """
            SELECT i.body FROM items i JOIN responses r ON r.id = i.response
            WHERE i.id = ? AND r.partition = ? AND r.used > ? LIMIT 1
        """
        with self._opened() as db:
            row = db.execute(query, (name, partition, self._since())).fetchone()
        if row is None:
            raise RequestError(f"there is no item '{name}' in a kept response", status=404, param="input")
        return msgspec.json.decode(row[0])

    def delete(self, name: str, partition: str) -> None:
        """Remove a response and overwrite it. Raises RequestError (404) where there is none of that id."""
        with self._opened() as db:
            self._find(db, name, partition)
            db.execute("DELETE FROM responses WHERE id = ?", (name,))

    def _find(self, db: sqlite3.Connection, name: str, partition: str) -> bytes:
        query = "SELECT body FROM responses WHERE id = ? AND partition = ? AND used > ?"
        row = db.execute(query, (name, partition, self._since())).fetchone()
        if row is None:
            raise _not_found(name)
        return row[0]

    def _since(self) -> float:
        return time.time() - self._days * DAY

    @contextmanager
    def _opened(self, *, make: bool = False) -> Generator[sqlite3.Connection]:
        """The file, in a transaction that is undone where something goes wrong. A file that is not there is empty."""
        try:
            db = self._connect(make=make)
            try:
                with db:
                    yield db
            finally:
                db.close()
        except (sqlite3.Error, OSError) as error:
            raise RequestError(
                f"the file of kept responses, {self._path}, cannot be used: {error}; "
                "send store: false, or move the file away",
                status=503,
                code="store_unavailable",
            ) from error

    def _connect(self, *, make: bool) -> sqlite3.Connection:
        if make and not self._path.exists():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        there = self._path.exists()
        db = sqlite3.connect(self._path if there else ":memory:", timeout=BUSY_SECONDS)
        try:
            _prepare(db)
        except BaseException:
            db.close()
            raise
        return db


def _prepare(db: sqlite3.Connection) -> None:
    """Settle how the file is used, and lay out the tables of a new one."""
    _write_ahead(db)
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON", "secure_delete = ON"):
        db.execute(f"PRAGMA {pragma}")
    if db.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    version = db.execute("PRAGMA user_version").fetchone()[0]  # another process may have been faster
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(f"another version of brim made it (layout {version}, not {VERSION})")
    if version == 0:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
    db.commit()


def _write_ahead(db: sqlite3.Connection) -> None:
    """Let readers and a writer go side by side. SQLite does not wait for others where it changes this."""
    attempts = round(BUSY_SECONDS / RETRY_SECONDS)
    while db.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            attempts -= 1
            if attempts == 0:
                raise
            sleep(RETRY_SECONDS)


def _not_found(name: str, *, code: str = "not_found", param: str | None = None) -> RequestError:
    return RequestError(f"there is no response '{name}' among those kept", status=404, code=code, param=param)
