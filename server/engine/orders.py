"""What the decoding thread is told to do."""

from __future__ import annotations

from server.engine.messages import Cancel, GetStats, Shutdown
from server.engine.sequence import Request


class EmbedRequest:
    """Inputs to embed, tokenized."""

    def __init__(self, number: int, inputs: list[list[int]]) -> None:
        self.number = number
        self.inputs = inputs


Order = Request | EmbedRequest | Cancel | GetStats | Shutdown
