"""The server's log: one line an event on stderr, with a traceback only where --debug asks for it."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

DEBUG_VARIABLE = "BRIM_DEBUG"


def debugging() -> bool:
    """Whether tracebacks and the workers' own output are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0", "false")


def enable_debugging() -> None:
    """Ask for tracebacks, here and in every process started from here."""
    os.environ[DEBUG_VARIABLE] = "1"


class _OneLine(logging.Formatter):
    """Leaves out tracebacks; the message has to say what happened."""

    def formatException(  # noqa: N802 -- logging's own name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        return super().formatException(ei) if debugging() else ""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).rstrip("\n")


def configure() -> None:
    """Send brim's own log and uvicorn's to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("server").setLevel(logging.DEBUG if debugging() else logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.INFO if debugging() else logging.ERROR)
