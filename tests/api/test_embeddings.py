"""POST /v1/embeddings with a real server: an encoder, and a chat model's second engine."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.api.vectors import normalized
from tests.reference.random_bert import Bert

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.conftest import RunningServer

PATH = "/v1/embeddings"
TEXTS = ["a cat sat.", "where is the cat?", "9 dogs"]


def embed(server: RunningServer, given: Any, **fields: Any) -> NDArray[np.float32]:
    answer = server.post(PATH, {"model": "encoder", "input": given, **fields})
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()["data"]], np.float32)


def refusal(server: RunningServer, body: dict[str, Any]) -> dict[str, Any]:
    answer = server.post(PATH, body)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def test_an_answer_has_openais_form(text_server: RunningServer) -> None:
    answer = text_server.post(PATH, {"model": "encoder", "input": TEXTS, "user": "me"}).json()
    assert (answer["object"], answer["model"]) == ("list", "encoder")
    assert [(one["object"], one["index"]) for one in answer["data"]] == [("embedding", i) for i in range(3)]
    tokens = sum(len(text.replace(" ", "")) + 2 for text in TEXTS)  # a letter is a token, and [CLS] and [SEP] are added
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_vectors_have_length_one_and_are_those_of_the_forward_pass(text_server: RunningServer) -> None:
    found = embed(text_server, TEXTS)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, found, strict=True):
        asked = {"model": "encoder", "content": text, "add_special": True}
        tokens = text_server.post("/tokenize", asked).json()["tokens"]
        expected = normalized(Bert("mean").embed(tokens)[None])[0]
        assert float(vector @ expected) > 0.9999


def test_one_or_many_texts_or_tokens_give_the_same(text_server: RunningServer) -> None:
    together = embed(text_server, TEXTS)
    assert np.allclose(embed(text_server, TEXTS[1]), together[1:2], atol=1e-3)
    asked = {"model": "encoder", "content": TEXTS[1], "add_special": True}
    tokens = text_server.post("/tokenize", asked).json()["tokens"]
    assert np.allclose(embed(text_server, tokens), together[1:2], atol=1e-3)
    assert np.allclose(embed(text_server, [tokens, TEXTS[0]]), together[[1, 0]], atol=1e-3)


def test_base64_is_that_of_float32(text_server: RunningServer) -> None:
    answer = text_server.post(PATH, {"model": "encoder", "input": TEXTS, "encoding_format": "base64"}).json()
    read = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
    assert np.allclose(np.stack(read), embed(text_server, TEXTS), atol=1e-3)


def test_dimensions_cut_and_normalise_again(text_server: RunningServer) -> None:
    whole, cut = embed(text_server, TEXTS), embed(text_server, TEXTS, dimensions=16)
    assert cut.shape == (3, 16)
    assert np.allclose(cut, normalized(whole[:, :16]), atol=1e-3)
    error = refusal(text_server, {"model": "encoder", "input": "x", "dimensions": 65})
    assert error["param"] == "dimensions"
    assert "64 dimensions" in error["message"]


def test_a_chat_model_embeds_by_an_engine_of_its_own(text_server: RunningServer) -> None:
    found = embed(text_server, ["Once upon a time", "Once upon a time", "The capital of France"], model="demo")
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert float(found[0] @ found[1]) > 0.9999
    assert float(found[0] @ found[2]) < 0.99
    models = text_server.get("/v1/models").json()["data"]
    assert sorted(model["id"] for model in models) == ["demo", "encoder", "filler", "reranker"]
    assert 'brim_embedding_inputs_total{model="demo (embeddings)"} 3.0' in text_server.get("/metrics").text
    said = text_server.post("/v1/completions", {"model": "demo", "prompt": "Once", "max_tokens": 2})
    assert said.status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion"])
@pytest.mark.parametrize(("model", "words"), [("encoder", "gives embeddings"), ("reranker", "ranks documents")])
def test_a_model_that_is_not_for_text_generates_none(
    text_server: RunningServer, path: str, model: str, words: str
) -> None:
    content = {"messages": [{"role": "user", "content": "x"}]} if "chat" in path else {"prompt": "x"}
    answer = text_server.post(path, {"model": model, **content})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"input": 5}, "input", "list of token ids"),
    ({"input": []}, "input", "list of token ids"),
    ({"input": ["x", 5]}, "input", ""),
    ({"input": [[]]}, "input[0]", ""),
    ({"input": ["x"] * 2049}, "input", "at most 2048"),
    ({"input": [5000]}, "input", "token 5000 is not in the vocabulary"),
    ({"input": "x " * 300}, "input", "give from 1 to 256"),
    ({"encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
    ({"dimensions": 0}, "dimensions", "greater than or equal to 1"),
    ({"truncate": True}, "truncate", "not a known field"),
    ({"model": "reranker"}, "model", "use /v1/rerank"),
]


@pytest.mark.parametrize(("changed", "param", "words"), FAULTS)
def test_a_field_at_fault_is_named(text_server: RunningServer, changed: dict[str, Any], param: str, words: str) -> None:
    error = refusal(text_server, {"model": "encoder", "input": "x", **changed})
    assert error["param"].startswith(param)
    assert words in error["message"]
