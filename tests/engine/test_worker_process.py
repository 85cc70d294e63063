"""What a worker's process says on its standard error."""

from __future__ import annotations

import asyncio
import sys

import pytest

from server.engine.worker_process import WorkerProcess

CHATTY = "import sys; print('x' * 500_000, file=sys.stderr); sys.exit('no more memory')"


async def ended(program: str) -> WorkerProcess:
    """A process that has run to its end, and whose log has been read."""
    process = WorkerProcess(
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
    )
    await process.wait()
    await process._reading
    return process


async def test_a_line_of_any_length_leaves_the_last_words_to_be_heard() -> None:
    assert (await ended(CHATTY)).cause_of_death == "exit status 1; its last words: no more memory"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
async def test_what_it_says_is_shown_only_while_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, shown: bool
) -> None:
    monkeypatch.setenv("BRIM_DEBUG", value)
    await ended("import sys; sys.exit('no more memory')")
    assert ("no more memory" in capsys.readouterr().err) == shown
