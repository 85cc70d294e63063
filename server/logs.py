"""The server's log: one line an event on stderr, as text or as JSON.

What a request holds stays out of it. Tracebacks come only with --debug, and the messages of exceptions, which may
repeat a part of a prompt, only with --log-prompts.
"""

from __future__ import annotations

import datetime
import logging
import os
import sys
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from types import TracebackType

    ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

DEBUG_VARIABLE = "BRIM_DEBUG"

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered, for the lines that tell of it."""

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
"""Control characters, written so that no text can forge a line of the log or steer a terminal."""


def debugging() -> bool:
    """Whether tracebacks and the workers' own output are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0", "false")


def enable_debugging() -> None:
    """Ask for tracebacks, here and in every process started from here."""
    os.environ[DEBUG_VARIABLE] = "1"


class _Private(logging.Formatter):
    """Writes tracebacks only while debugging, and the messages of exceptions only if asked to."""

    def __init__(self, *, with_messages: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._with_messages = with_messages

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 -- logging's own name
        if not debugging() or ei[1] is None:
            return ""
        return super().formatException(ei) if self._with_messages else "".join(_frames(ei[1])).rstrip("\n")


class TextFormatter(_Private):
    """`12:34:56 INFO [request id] message`, with a traceback below where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        number = request_id.get()
        who = f" [{number}]" if number else ""
        message = record.getMessage().translate(_CONTROL)
        line = f"{self.formatTime(record, self.datefmt)} {record.levelname}{who} {message}"
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(_Private):
    """A JSON object a line: time (UTC), level, logger, message; request_id and traceback where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if number := request_id.get():
            entry["request_id"] = number
        if record.exc_info and (trace := self.formatException(record.exc_info)):
            entry["traceback"] = trace
        return msgspec.json.encode(entry).decode()


def _frames(error: BaseException) -> list[str]:
    """A traceback without the messages of its exceptions."""
    lines: list[str] = []
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        lines += [*_frames(earlier), "which led to:\n"]
    lines += traceback.format_tb(error.__traceback__)
    return [*lines, f"{type(error).__name__} (its message is shown with --log-prompts)\n"]


def configure(*, as_json: bool = False, with_prompts: bool = False) -> None:
    """Send brim's own log and uvicorn's to stderr.

    Args:
        as_json: write a JSON object a line.
        with_prompts: show what may hold a part of a request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((JsonFormatter if as_json else TextFormatter)(with_messages=with_prompts))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("server").setLevel(logging.DEBUG if debugging() else logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.INFO if debugging() else logging.ERROR)
