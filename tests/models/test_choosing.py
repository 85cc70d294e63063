"""How a model on the hub is named, and which of a repository's files is meant."""

from __future__ import annotations

import pytest

from server.errors import BrimError
from server.models.choosing import choose, choose_projector
from server.models.hub import RemoteFile, Repository
from server.models.manifest import ModelName


def repository(*names: str) -> Repository:
    return Repository("o/r", "c", tuple(RemoteFile(name, 1, f"sha256:{name}") for name in names))


@pytest.mark.parametrize("prefix", ["hf:", "hf.co/", "HF.co/", "huggingface.co/", "https://huggingface.co/"])
def test_every_spelling_names_the_same_model(prefix: str) -> None:
    name = ModelName.parse(f"{prefix}bartowski/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M")
    assert str(name) == "hf.co/bartowski/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"
    assert name.repository == "bartowski/Qwen2.5-0.5B-Instruct-GGUF"
    assert ModelName.in_file_name(name.file_name) == str(name).lower()
    assert "/" not in name.file_name


@pytest.mark.parametrize(
    "text", ["hf:", "hf:a", "hf:../b", "hf:a/..", "hf:a/b/c", "hf:a/b:../c", "hf:a/b:c/d", "hf:a/b:"]
)
def test_what_is_no_repository_is_no_name(text: str) -> None:
    with pytest.raises(BrimError, match="is no model on the hub: write hf:OWNER/REPOSITORY"):
        ModelName.parse(text)


@pytest.mark.parametrize(
    ("names", "choice", "chosen"),
    [
        (["a-Q8_0.gguf", "a-Q4_0.gguf", "a-Q4_K_M.gguf"], None, "a-Q4_K_M.gguf"),
        (["a-Q8_0.gguf", "a-Q4_0.gguf"], None, "a-Q4_0.gguf"),
        (["a-Q8_0.gguf", "a-Q2_K.gguf"], None, "a-Q8_0.gguf"),
        (["a.gguf", "mmproj-a-Q4_K_M.gguf", "README.md"], None, "a.gguf"),
        (["a-Q4_0_4_4.gguf", "a-q4_0.gguf"], "Q4_0", "a-q4_0.gguf"),
        (["a-Q4_K_M.gguf", "a-Q4_K_S.gguf", "a.Q4_K.gguf"], "q4_k", "a.Q4_K.gguf"),
        (["a-IQ4_XS.gguf", "a-Q4_XS.gguf"], "Q4_XS", "a-Q4_XS.gguf"),
        (["a-f16.gguf", "b-f16.gguf"], "B-F16.gguf", "b-f16.gguf"),
        (["deep/a-f16.gguf", "b-q8_0.gguf"], "a-f16.gguf", "deep/a-f16.gguf"),
        (["a-UD-Q4_K_XL.gguf", "a-Q4_K_M.gguf"], "UD-Q4_K_XL", "a-UD-Q4_K_XL.gguf"),
    ],
)
def test_the_file_that_is_meant(names: list[str], choice: str | None, chosen: str) -> None:
    assert [file.name for file in choose(repository(*names), choice)] == [chosen]


def test_the_parts_of_a_split_file_come_together_and_in_order() -> None:
    parts = [f"Q8_0/a-Q8_0-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    found = choose(repository(*reversed(parts), "a-f16.gguf"), "Q8_0")
    assert [file.name for file in found] == parts
    assert choose(repository(*parts), "a-Q8_0-00002-of-00003.gguf") == choose(repository(*parts), None)
    assert choose(repository(*parts[1:]), None) == ()


@pytest.mark.parametrize(
    ("names", "choice", "words"),
    [
        (["a-f16.gguf"], "Q4_0", "no GGUF file Q4_0; there are a-f16.gguf"),
        (["a-f16.gguf", "b-f16.gguf"], None, "no single default one; name one after a colon, of a-f16.gguf, b-f16"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0", "several GGUF files and no single Q4_0 one"),
    ],
)
def test_where_no_one_file_is_meant_those_there_are_are_named(names: list[str], choice: str | None, words: str) -> None:
    with pytest.raises(BrimError, match=words):
        choose(repository(*names), choice)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["a.mmproj-f32.gguf", "a.mmproj-q8_0.gguf"], "a.mmproj-q8_0.gguf"),
        (["mmproj-b.gguf", "deep/mmproj-a-F32.gguf"], "deep/mmproj-a-F32.gguf"),
        (["mmproj-b-Q4_0.gguf", "mmproj-a-Q5_0.gguf"], "mmproj-a-Q5_0.gguf"),
    ],
)
def test_the_projector_that_comes_with_a_model(names: list[str], chosen: str) -> None:
    found = choose_projector(repository("a-F16.gguf", "mmproj.txt", "mmproj-F16/readme", *names))
    assert found
    assert found.name == chosen


def test_a_repository_may_have_no_projector() -> None:
    assert choose_projector(repository("a-F16.gguf", "mmproj-F16.safetensors")) is None
