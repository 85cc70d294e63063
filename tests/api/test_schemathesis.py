"""Schemathesis over the whole API reference, against a real server: no 5xx, no hang, nothing beside the schemas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from tests.conftest import StartServer

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
LONGEST_ANSWER = 60
"""Seconds after which a request counts as one that hangs."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_endpoint_does_what_the_reference_says(
    start_server: StartServer, demo_gguf: Path, tmp_path: Path
) -> None:
    server = start_server(demo_gguf, "--ctx", "512", "--debug")
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIGURATION), "run"]
    command += [f"{server.url}/openapi.json", f"--request-timeout={LONGEST_ANSWER}", "--seed=1", "--no-color"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **hooks}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[ran.stdout.find("FAILURES") :]
    assert "Traceback" not in server.log.read_text(errors="replace")
    assert server.get("/health").status_code == 200
