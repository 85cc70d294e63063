"""POST /v1/rerank with a real server and a random classification head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.reference.random_bert import CLS, SEP, Bert

if TYPE_CHECKING:
    from tests.conftest import RunningServer

QUERY = "where is the cat?"
DOCUMENTS = ["a cat sat.", "9 dogs", "the cat is here", "z"]
BODY = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS}


def tokens(server: RunningServer, text: str) -> list[int]:
    return server.post("/tokenize", {"model": "reranker", "content": text}).json()["tokens"]


def test_the_best_comes_first_with_the_score_of_the_forward_pass(text_server: RunningServer) -> None:
    answer = text_server.post("/v1/rerank", BODY)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert (content["object"], content["model"]) == ("list", "reranker")
    results: list[dict[str, Any]] = content["results"]
    assert sorted(one["index"] for one in results) == [0, 1, 2, 3]
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True)
    total = 0
    for one in results:
        pair = [CLS, *tokens(text_server, QUERY), SEP, *tokens(text_server, DOCUMENTS[int(one["index"])]), SEP]
        total += len(pair)
        assert one["relevance_score"] == pytest.approx(float(Bert("rank").embed(pair)[0]), abs=0.02)
        assert "document" not in one
    assert content["usage"] == {"prompt_tokens": total, "total_tokens": total}


@pytest.mark.parametrize("path", ["/rerank", "/reranking", "/v1/reranking"])
def test_other_paths_and_documents_as_objects_give_the_same(text_server: RunningServer, path: str) -> None:
    plain = text_server.post("/v1/rerank", BODY).json()["results"]
    objects = {**BODY, "documents": [{"text": text} for text in DOCUMENTS], "top_n": 2, "return_documents": True}
    results = text_server.post(path, objects).json()["results"]
    assert [one["index"] for one in results] == [one["index"] for one in plain[:2]]
    assert [one["document"]["text"] for one in results] == [DOCUMENTS[one["index"]] for one in results]


@pytest.mark.parametrize(
    ("changed", "param", "words"),
    [
        ({"model": "encoder"}, "model", "cannot rank"),
        ({"model": "demo"}, "model", "cannot rank"),
        ({"query": ""}, "query", "at least 1 character"),
        ({"documents": []}, "documents", "at least 1 item"),
        ({"documents": [{"title": "x"}]}, "documents[0]", ""),
        ({"documents": ["x " * 300]}, "input", "give from 1 to 256"),
        ({"top_n": 0}, "top_n", "greater than or equal to 1"),
        ({"max_chunks_per_doc": 1}, "max_chunks_per_doc", "not a known field"),
    ],
)
def test_a_field_at_fault_is_named(text_server: RunningServer, changed: dict[str, Any], param: str, words: str) -> None:
    answer = text_server.post("/v1/rerank", {**BODY, **changed})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert words in error["message"]
