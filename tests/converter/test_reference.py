"""Our files hold what llama.cpp's own converter writes: every tensor bit for bit, every tokenizer and model field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from converter import convert
from tests.reference.digest_gguf import CASES, DIGESTS, TYPES, digest

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = json.loads(DIGESTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, CASES[request.param].make(tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("out_type", TYPES)
def test_generated_checkpoint(case: tuple[str, Path], out_type: str, tmp_path: Path) -> None:
    name, checkpoint = case
    convert(checkpoint, tmp_path / "ours.gguf", out_type)
    assert digest(tmp_path / "ours.gguf") == REFERENCE[name][out_type]


@pytest.mark.parametrize("out_type", TYPES)
def test_stories260k(stories: Path, out_type: str, tmp_path: Path) -> None:
    convert(stories, tmp_path / "ours.gguf", out_type)
    assert digest(tmp_path / "ours.gguf") == REFERENCE["stories260k"][out_type]
