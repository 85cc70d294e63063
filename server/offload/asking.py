"""Asks the probe in a subprocess, with a time limit: a driver that crashes or hangs costs a warning, no more."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from server.engine.worker_process import THREADING
from server.offload.questions import Answer, Failure, Question

TIME_LIMIT = 45.0
"""Seconds; a first CUDA context on a busy machine takes more than ten."""


def ask(question: Question, *, time_limit: float = TIME_LIMIT) -> Answer:
    """Put one question to a probe of its own. Whatever goes wrong comes back as a `Failure` with one sentence."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "server.offload.probe"],
            input=msgspec.json.encode(question),
            capture_output=True,
            timeout=time_limit,
            check=False,
            env=THREADING | os.environ | {"GGML_NO_BACKTRACE": "1"},  # an abort would start a debugger
        )
    except subprocess.TimeoutExpired:
        return Failure(f"no answer from the device drivers within {time_limit:g} s")
    except OSError as error:
        return Failure(f"the device probe could not be started: {error.strerror}")
    if done.returncode != 0 or not done.stdout:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        last_words = f": {lines[-1].strip()}" if lines else ""
        return Failure(f"the device probe ended with status {done.returncode}{last_words}")
    return msgspec.json.decode(done.stdout, type=Answer)
