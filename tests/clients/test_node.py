"""JavaScript clients against a real server: OpenAI's own package and the Vercel AI SDK. Their tests are in node/."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.environments import node_modules, program

TESTS = Path(__file__).parent / "node"
OLDEST_NODE = 20


@pytest.fixture(scope="module")
def node() -> str:
    found = program("node")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node is {version}, and the clients need {OLDEST_NODE}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("client", ["openai", "ai-sdk"])
def test_a_clients_own_tests_pass(node: str, client: str, server_url: str, tmp_path: Path) -> None:
    script = Path(shutil.copy(TESTS / f"{client}.test.mjs", tmp_path))
    (tmp_path / "node_modules").symlink_to(node_modules(TESTS))  # packages are looked for beside the script
    done = subprocess.run(
        [node, "--test", "--test-reporter=spec", "--test-timeout=120000", script.name],
        cwd=tmp_path,
        env={**os.environ, "BRIM_URL": server_url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
