"""Runs a long command behind one live line, its whole output in a log file."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING

from toolchain import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\]")
SECONDS_BETWEEN_PLAIN_LINES = 30
LINES_SHOWN_ON_FAILURE = 20


class Output:
    """What a running command has printed so far: a copy in the log, the last lines, and Ninja's count of steps."""

    def __init__(self, log: IO[str]) -> None:
        self.log = log
        self.tail: deque[str] = deque(maxlen=LINES_SHOWN_ON_FAILURE)
        self.step: tuple[int, int] | None = None

    def read(self, pipe: IO[str]) -> None:
        """Takes lines from `pipe` until its end."""
        for line in pipe:
            self.log.write(line)
            self.log.flush()
            self.tail.append(line.rstrip())
            if found := NINJA_STEP.search(line):
                self.step = (int(found[1]), int(found[2]))


def describe_progress(label: str, seconds: float, step: tuple[int, int] | None) -> str:
    """The live line: what runs, how far Ninja is, and the time it took so far."""
    minutes, rest = divmod(int(seconds), 60)
    count = f"  [{step[0]}/{step[1]}] {100 * step[0] // step[1]} %" if step else ""
    return f"  {label}{count}  {minutes}:{rest:02}"


def run_logged(label: str, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
    """Runs a command, showing `label` and its progress, and appends its output to `log`.

    The command gets a process group of its own, so that nothing of it outlives an interruption.

    Raises:
        SetupError: the command failed; the sentence ends with its last lines and names the log.
    """
    started = time.monotonic()
    with log.open("a", encoding="utf-8") as log_file:
        log_file.write(f"$ {shlex.join(command)}\n")
        log_file.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=dict(environ or os.environ),
            process_group=0,
        )
        assert process.stdout
        output = Output(log_file)
        reader = threading.Thread(target=output.read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            _show_until_done(process, label, started, output)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        reader.join()
    if process.returncode != 0:
        raise SetupError("\n".join([f"{label} failed (whole log: {log}). Its last lines:", *output.tail]))


def _show_until_done(process: subprocess.Popen[str], label: str, started: float, output: Output) -> None:
    """Repaints one line each second on a terminal; elsewhere prints a line now and then."""
    live = sys.stdout.isatty()
    printed = time.monotonic() - (SECONDS_BETWEEN_PLAIN_LINES if live else 0)
    print(describe_progress(label, 0, None), end="" if live else "\n", flush=True)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        line = describe_progress(label, time.monotonic() - started, output.step)
        done = process.returncode is not None
        if live:
            print(f"\r{line}\x1b[K", end="\n" if done else "", flush=True)
        elif done or time.monotonic() - printed > SECONDS_BETWEEN_PLAIN_LINES:
            print(f"{line}{' done' if done and process.returncode == 0 else ''}", flush=True)
            printed = time.monotonic()
        if done:
            return
