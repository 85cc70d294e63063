"""The errors a user or a client may see: each is one clear sentence, and each protocol renders it in its own form."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class BrimError(Exception):
    """Something the user can mend. Its text is the whole message: the command line prints it and exits with 1."""


class LoadError(BrimError):
    """A model could not be loaded. `out_of_memory` tells whether a smaller placement may help."""

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class RequestError(BrimError):
    """A request that cannot be answered as it stands.

    Args:
        message: one sentence that says what is wrong and what to do.
        status: the HTTP status that fits (400, 401, 404, 413, 429, 503, ...).
        code: a short machine-readable name, such as `context_length_exceeded`.
        param: the request's field at fault, if one is.
        retry_after: seconds after which the same request may succeed (429 and 503).
        figures: the numbers that the message has, by name, for programs.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        figures: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.figures = dict(figures or {})
