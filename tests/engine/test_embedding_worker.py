"""Embeddings and scores of real workers against a forward pass in NumPy and against llama.cpp's pooling."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converter.gguf_format import Field, Fields
from server.engine.load_spec import Placement
from server.engine.request import Generate
from server.errors import RequestError
from tests.reference.random_bert import CLS, SEP, Bert

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from server.engine.client import Engine
    from server.engine.messages import Embeddings
    from tests.engine.conftest import StartEngine

TEXTS = ["a cat sat.", "where is the cat?", "z", "9 dogs, 10 cats and 11 birds!", "a cat sat."]


def vectors(answer: Embeddings) -> NDArray[np.float32]:
    return np.stack([np.frombuffer(raw, "<f4") for raw in answer.vectors])


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def same(some: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """But for rounding, which depends on what else is in a batch."""
    return bool(np.abs(some - others).max() < 0.005)


def in_batches_of(tokens: int) -> dict[str, Any]:
    return {"embedding": True, "placement": Placement(n_batch=tokens, n_ubatch=tokens)}


async def start_bert(start_engine: StartEngine, folder: Path, bert: Bert) -> Engine:
    path = bert.write(folder / f"{bert.pooling}.gguf")
    return await start_engine(path=str(path), name="bert", context=256, **in_batches_of(256))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_an_encoder_gives_what_a_forward_pass_gives(
    start_engine: StartEngine, tmp_path: Path, pooling: str
) -> None:
    bert = Bert(pooling)
    engine = await start_bert(start_engine, tmp_path, bert)
    assert engine.info.pooling == pooling
    assert engine.info.embedding
    answer = await engine.embed(TEXTS)
    for text, vector, count in zip(TEXTS, vectors(answer), answer.token_counts, strict=True):
        tokens = (await engine.tokenize(text, add_special=True)).tokens
        assert (tokens[0], tokens[-1], len(tokens)) == (CLS, SEP, count)
        expected = bert.embed(tokens)
        assert np.abs(vector - expected).max() < 0.02  # llama.cpp keeps K and V in F16 and looks GELU up in a table
        assert cosine(vector, expected) > 0.9999


async def test_a_batch_gives_what_its_inputs_give_alone_however_many_there_are(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    engine = await start_bert(start_engine, tmp_path, Bert("mean"))
    texts = [f"number {i} of many" + " x" * (i % 50) for i in range(150)]
    together = vectors(await engine.embed(texts))
    alone = vectors(await engine.embed(texts[77:78]))
    assert same(together[77:78], alone)
    at_once = await asyncio.gather(*(engine.embed([text]) for text in texts[:20]))
    assert same(together[:20], np.concatenate([vectors(one) for one in at_once]))


async def test_scores_are_those_of_the_classification_head(start_engine: StartEngine, tmp_path: Path) -> None:
    bert = Bert("rank")
    engine = await start_bert(start_engine, tmp_path, bert)
    query = "where is the cat?"
    answer = await engine.embed(TEXTS, query=query)
    asked = (await engine.tokenize(query)).tokens
    for text, vector, count in zip(TEXTS, vectors(answer), answer.token_counts, strict=True):
        tokens = [CLS, *asked, SEP, *(await engine.tokenize(text)).tokens, SEP]
        assert len(tokens) == count
        assert np.abs(vector - bert.embed(tokens)).max() < 0.02


async def test_a_files_own_form_for_ranking_is_kept(start_engine: StartEngine, tmp_path: Path) -> None:
    class Formed(Bert):
        def metadata(self) -> Fields:
            form = Field.string("[CLS]about {query}: {document}[SEP]")
            return super().metadata() | {"tokenizer.chat_template.rerank": form}

    engine = await start_bert(start_engine, tmp_path, Formed("rank"))
    answer = await engine.embed(["a {query}"], query="x {document}")
    tokens = (await engine.tokenize("[CLS]about x {document}: a {query}[SEP]")).tokens
    assert tokens[0] == CLS
    assert answer.token_counts == [len(tokens)]
    assert np.abs(vectors(answer)[0] - Bert("rank").embed(tokens)).max() < 0.02


async def test_a_decoder_gives_the_mean_of_its_tokens_also_of_inputs_longer_than_a_batch(
    start_engine: StartEngine, random_gguf: Path
) -> None:
    from llama_cpp import LLAMA_POOLING_TYPE_MEAN, Llama

    engine = await start_engine(**in_batches_of(32))
    texts = ["Once upon a time", "She counted: 1, 22, 333. " * 12, "fox", "It was late! " * 6]
    answer = await engine.embed(texts)
    assert engine.info.pooling == "none"
    assert max(answer.token_counts) > 3 * 32
    reference = Llama(
        str(random_gguf), embedding=True, pooling_type=LLAMA_POOLING_TYPE_MEAN, n_ctx=512, n_threads=1, verbose=False
    )
    for text, vector in zip(texts, vectors(answer), strict=True):
        expected = np.array(reference.embed(text), np.float32)
        assert np.abs(vector - expected).max() < 0.02
        assert cosine(vector, expected) > 0.9999
    tokens = [(await engine.tokenize(text, add_special=True)).tokens for text in texts]
    assert same(vectors(await engine.embed(tokens)), vectors(answer))


async def test_what_does_not_fit_is_refused_or_cut(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_bert(start_engine, tmp_path, Bert("mean"))
    assert engine.info.context == 256
    longest = [CLS, *[7] * 254, SEP]
    assert (await engine.embed([longest])).token_counts == [256]
    unfit: list[tuple[list[int], str]] = [([*longest, SEP], "has 257 tokens"), ([], "has 0"), ([5000], "token 5000")]
    for tokens, words in unfit:
        with pytest.raises(RequestError, match=words) as caught:
            await engine.embed([tokens])
        assert (caught.value.status, caught.value.param) == (400, "input")
    assert (await engine.embed([[*longest, SEP]], truncate=True)).token_counts == [256]


async def test_an_embedding_worker_refuses_text_and_another_refuses_embeddings(start_engine: StartEngine) -> None:
    embedding, generating = await start_engine(**in_batches_of(64)), await start_engine()
    with pytest.raises(RequestError, match="generates no text"):
        await anext(embedding.generate(Generate(id=0, prompt="x")))
    with pytest.raises(RequestError, match="gives no embeddings"):
        await generating.embed(["x"])
    assert (await embedding.stats()).counters["embedding_inputs_total"] == 0
