"""What a model is for, as its file tells it, and how it is loaded to give embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converter.gguf_info import read_gguf_info
from server.errors import RequestError
from server.models.embedding import LONGEST_IN_PARTS, Purpose, plan_embedder, pooling_of, require
from server.models.resolve import resolve
from server.models.store import Store
from server.settings import Settings
from tests.offload.models import LLAMA_3_8B, write_hollow
from tests.reference.random_bert import Bert

if TYPE_CHECKING:
    from pathlib import Path

    from server.models.resolve import ModelSource


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, ModelSource]:
    """A model of each kind."""
    paths = [
        write_hollow(LLAMA_3_8B, tmp_path / "decoder.gguf"),
        Bert("cls").write(tmp_path / "encoder.gguf"),
        Bert("rank").write(tmp_path / "reranker.gguf"),
    ]
    return {path.stem: resolve(str(path), Store(tmp_path / "models")) for path in paths}


@pytest.mark.parametrize(("name", "pooling"), [("decoder", None), ("encoder", "cls"), ("reranker", "rank")])
def test_a_files_metadata_tell_how_it_pools(sources: dict[str, ModelSource], name: str, pooling: str | None) -> None:
    assert sources[name].pooling == pooling
    assert pooling_of(read_gguf_info(sources[name].path)) == pooling


ALLOWED: dict[str, set[Purpose]] = {
    "decoder": {"text", "embedding", "vocabulary"},
    "encoder": {"embedding", "vocabulary"},
    "reranker": {"ranking", "vocabulary"},
}


@pytest.mark.parametrize("purpose", ["text", "embedding", "ranking", "vocabulary"])
@pytest.mark.parametrize("name", ALLOWED)
def test_a_model_is_refused_what_it_is_not_made_for(
    sources: dict[str, ModelSource], name: str, purpose: Purpose
) -> None:
    if purpose in ALLOWED[name]:
        require(sources[name], purpose)
        return
    with pytest.raises(RequestError, match=name) as caught:
        require(sources[name], purpose)
    assert (caught.value.status, caught.value.param) == (400, "model")


def test_an_encoders_batch_holds_its_longest_input(sources: dict[str, ModelSource]) -> None:
    spec, _ = plan_embedder(sources["encoder"], Settings(cache_ram=0, gpu_layers=0), {})
    assert (spec.name, spec.embedding, spec.context) == ("encoder", True, 256)
    assert spec.placement.n_ubatch == spec.placement.n_batch == 256
    shorter, _ = plan_embedder(sources["encoder"], Settings(cache_ram=0, gpu_layers=0, ctx=100), {})
    assert (shorter.context, shorter.placement.n_ubatch) == (100, 100)


def test_a_decoder_takes_long_inputs_in_parts(sources: dict[str, ModelSource]) -> None:
    spec, _ = plan_embedder(sources["decoder"], Settings(cache_ram=0, gpu_layers=0), {})
    assert (spec.name, spec.context) == ("decoder (embeddings)", LONGEST_IN_PARTS)
    assert spec.placement.n_ubatch == spec.placement.n_batch == 512
