"""A worker's process: how it is started, what it says on its standard error, and what it died of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from typing import Self

from server.logs import debugging

LOG_LINES_KEPT = 40
THREADING = {"GOMP_SPINCOUNT": "100000"}
"""How often llama.cpp's threads look for each other before they sleep, at each of the hundreds of barriers of a step:
for 2 to 7 ms by processor, longer than the short work that the server and its client do beside them, and than a thread
is ahead of the others in a long prompt. OpenMP's own default is three times that, and where other programs take all
cores steps take twice as long.
"""


class WorkerProcess:
    """A child process that runs `server.engine.worker`; its log is printed while debugging, and its end is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._reading = asyncio.create_task(self._keep_log())

    @classmethod
    async def start(cls, descriptors: tuple[int, ...]) -> Self:
        """Start a worker that inherits these file descriptors, of its end of the channel."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a server.py in the folder that brim is called from is not ours
            "-m",
            "server.engine.worker",
            *map(str, descriptors),
            pass_fds=descriptors,
            stdin=asyncio.subprocess.PIPE,  # its end tells the worker that the server is gone
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the server's to handle
            env=THREADING | os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.returncode is not None

    async def wait(self) -> None:
        """Wait for its end."""
        await self._process.wait()

    async def kill(self) -> None:
        """End it at once."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def forget_log(self) -> None:
        """Read its log no more."""
        self._reading.cancel()

    @property
    def cause_of_death(self) -> str:
        """How it ended, and the last line that it printed."""
        code = self._process.returncode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        told = next((line for line in reversed(self._log) if line.strip()), "")
        return f"{how}; its last words: {told}" if told else how

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether its log says that there was too little memory."""
        words = "\n".join(self._log).lower()
        return "out of memory" in words or "failed to allocate" in words

    async def _keep_log(self) -> None:
        assert self._process.stderr
        debug = debugging()
        while line := await _next_line(self._process.stderr):
            text = line.decode("utf-8", "replace").rstrip()
            self._log.append(text)
            if debug:
                print(text, file=sys.stderr)


async def _next_line(log: asyncio.StreamReader) -> bytes:
    """The next line; empty at the end. One that is longer than the reader takes is left out, except for its end."""
    while True:
        with contextlib.suppress(ValueError):
            return await log.readline()
