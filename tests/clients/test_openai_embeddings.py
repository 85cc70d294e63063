"""OpenAI's own client asks for embeddings. It asks for base64 by itself and decodes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from openai import OpenAI

if TYPE_CHECKING:
    from tests.conftest import RunningServer


@pytest.fixture
def client(text_server: RunningServer) -> OpenAI:
    return OpenAI(base_url=f"{text_server.url}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.mark.parametrize("model", ["encoder", "demo"])
def test_a_batch_gives_unit_vectors_in_order(client: OpenAI, model: str) -> None:
    answer = client.embeddings.create(model=model, input=["a cat sat.", "9 dogs", "a cat sat."])
    assert [one.index for one in answer.data] == [0, 1, 2]
    vectors = [one.embedding for one in answer.data]
    assert len({len(vector) for vector in vectors}) == 1
    for vector in vectors:
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-4)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-3)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)
    assert answer.usage.prompt_tokens > 3


def test_floats_and_fewer_dimensions(client: OpenAI) -> None:
    decoded = client.embeddings.create(model="encoder", input="a cat sat.", dimensions=8)
    floats = client.embeddings.create(model="encoder", input="a cat sat.", dimensions=8, encoding_format="float")
    assert len(floats.data[0].embedding) == 8
    assert floats.data[0].embedding == pytest.approx(decoded.data[0].embedding, abs=1e-3)


def test_a_refusal_names_the_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="encoder", input="x", dimensions=4096)
    assert caught.value.param == "dimensions"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="absent", input="x")
