"""Runs what docs/modelfile.md shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import demo
from converter import convert
from server.models.cli import app
from server.models.create import create_from_file, ensure_demo
from server.models.parameters import RULES
from server.models.store import Store
from tests.engine.projectors import write_llava

from .test_create import write_adapter

DOCS = Path(__file__).parents[2] / "docs" / "modelfile.md"
TEXT = DOCS.read_text(encoding="utf-8")
MODELFILES: list[str] = re.findall(r"```modelfile\n(.*?)```", TEXT, re.DOTALL)
COMMANDS: list[str] = re.findall(r"^\$ brim (.*)$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples name, all of it made from the demo checkpoint."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "SmolLM2-135M-Instruct").symlink_to(demo.CHECKPOINT)
    convert(demo.CHECKPOINT, folder / "model-f16.gguf", "F16")
    write_adapter(folder / "my lora.gguf", "llama")
    write_llava(folder / "mmproj-model-f16.gguf")
    assert ensure_demo(Store(folder / "home" / "models"))
    return folder


@pytest.mark.parametrize("example", MODELFILES)
def test_examples_can_be_created(folder: Path, example: str) -> None:
    path = folder / "Modelfile"
    path.write_text(example)
    store = Store(folder / "home" / "models")
    manifest = create_from_file(store, "example", path)
    assert store.model_path(manifest).is_file()


def test_commands_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIM_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    (folder / "Modelfile").write_text(MODELFILES[0])
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}: {result.stderr}"


def test_the_table_of_parameters_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", TEXT, re.MULTILINE)
    assert rows == [(name, str(rule), rule.meaning) for name, rule in RULES.items()]
