"""The thread that receives a worker's messages: what needs no reading passes what does, however long that takes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from server.engine.load_spec import LoadSpec
from server.engine.messages import Cancel, GetStats, Refused, Shutdown

if TYPE_CHECKING:
    import queue

    from server.engine.channel import WorkerEnd
    from server.engine.orders import Order
    from server.engine.reader import Reader


class Intake(threading.Thread):
    """Receives messages: gives texts to the reader, and the rest to the decoding thread.

    Args:
        orders: where the decoding thread takes its orders from.
    """

    def __init__(self, channel: WorkerEnd, reader: Reader, orders: queue.SimpleQueue[Order]) -> None:
        super().__init__(name="intake", daemon=True)
        self._channel = channel
        self._reader = reader
        self._orders = orders

    def run(self) -> None:
        """Receive until the server is gone, and with it soon this process."""
        while True:
            try:
                message = self._channel.receive()
            except EOFError:
                return
            match message:
                case Cancel(number):
                    if not self._reader.drop(number):
                        self._orders.put(message)
                case Shutdown(grace) if grace:
                    self._reader.shut_down(message)
                case GetStats() | Shutdown():
                    self._orders.put(message)
                case LoadSpec():
                    pass
                case _ if not self._reader.put(message):
                    text = "the texts that wait to be read take all the memory they may; try again later"
                    refused = Refused(id=message.id, message=text, status=429, code="queue_full", retry_after=2.0)
                    self._channel.send(refused)
                case _:
                    pass
