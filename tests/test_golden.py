"""The whole way on a real model: a checkpoint converted, served, and asked for the text that its author published."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from openai import OpenAI

from converter import convert

if TYPE_CHECKING:
    from tests.conftest import StartServer

STORIES = Path(__file__).parents[2] / "shared/models/stories260k"
PROMPT = "Once upon a time"
OTHERS = ("One day", "The cat", "Tom was", "Lily said", "It was a", "A big dog", "In the park")

pytestmark = pytest.mark.skipif(not STORIES.is_dir(), reason="no shared/models/stories260k beside the checkout")


@pytest.fixture(scope="module")
def golden() -> str:
    return (STORIES / "golden.txt").read_text().rstrip("\n")


def serve(start_server: StartServer, folder: Path, quant: str, *options: str) -> OpenAI:
    path = folder / f"stories-{quant}.gguf"
    convert(STORIES, path, quant)
    return OpenAI(base_url=f"{start_server(path, *options).url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module", params=["--kv-unified", "--kv-split"])
def client(
    request: pytest.FixtureRequest, start_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> OpenAI:
    return serve(start_server, tmp_path_factory.mktemp("stories"), "F32", request.param)


def story(client: OpenAI, prompt: str, *, stream: bool = False) -> str:
    model = client.models.list().data[0].id
    if not stream:
        return client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=200).choices[0].text
    chunks = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=200, stream=True)
    return "".join(chunk.choices[0].text for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_published_text_alone(client: OpenAI, golden: str, stream: bool) -> None:
    assert (PROMPT + story(client, PROMPT, stream=stream)).startswith(golden)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_published_text_among_seven_others(client: OpenAI, golden: str, stream: bool) -> None:
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(story, client, prompt, stream=stream) for prompt in OTHERS]
        assert (PROMPT + story(client, PROMPT, stream=stream)).startswith(golden)
        assert all(other.result() for other in others)


@pytest.mark.parametrize("quant", ["F16", "Q8_0"])
def test_smaller_types_load_and_answer(start_server: StartServer, tmp_path: Path, quant: str) -> None:
    assert story(serve(start_server, tmp_path, quant), PROMPT)
