"""A long command runs behind a live line; its failure shows its last lines and names the log."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bootstrap import ROOT
from progress import describe_progress, run_logged
from toolchain import SetupError


def test_line_shows_step_share_and_elapsed_time() -> None:
    assert describe_progress("Compiling", 125.7, (57, 140)) == "  Compiling  [57/140] 40 %  2:05"
    assert describe_progress("Installing", 3, None) == "  Installing  0:03"


def test_output_goes_to_the_log_and_ninjas_count_to_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "build.log"
    run_logged("Compiling", [sys.executable, "-c", "print('[3/4] Building CXX object')"], log)
    assert "[3/4] Building CXX object" in log.read_text()
    shown = capsys.readouterr().out
    assert "Compiling  [3/4] 75 %  0:0" in shown
    assert "Building CXX object" not in shown


def test_failure_shows_the_last_lines_and_where_the_log_is(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    script = "import sys; [print('line', n, flush=True) for n in range(100)]; sys.exit('error: no such thing')"
    with pytest.raises(SetupError) as failure:
        run_logged("Compiling", [sys.executable, "-c", script], log)
    said = str(failure.value)
    assert said.startswith(f"Compiling failed (whole log: {log})")
    assert "error: no such thing" in said
    assert "line 0\n" not in said


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_interruption_ends_the_command_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    grandchild = f"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"]
    code = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from progress import run_logged; import signal; "
    code += "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
    code += f"run_logged('Compiling', {command!r}, pathlib.Path({str(tmp_path / 'log')!r}))"
    with subprocess.Popen([sys.executable, "-c", code, str(ROOT / ".ci")], stdout=subprocess.DEVNULL) as runner:
        while not (pids.exists() and pids.read_text()):
            time.sleep(0.05)
        runner.terminate()
        assert runner.wait(timeout=30) == 143
    pid = int(pids.read_text())
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)
