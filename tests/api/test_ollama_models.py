"""Ollama's endpoints about models: what is listed, shown, created, copied and removed, in a store of the test's own."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from server.api.limits import Traffic
from server.app import create_app
from server.models.create import create
from server.models.manager import ModelManager
from server.models.modelfile import parse
from server.models.resolve import resolve
from server.models.store import Store
from server.models.uploads import KEPT_SECONDS
from server.settings import Settings
from tests.api.test_ollama_errors import error_of

if TYPE_CHECKING:
    from pathlib import Path

MODELFILE = """\
FROM {path}
PARAMETER temperature 0.25
PARAMETER stop "END"
PARAMETER stop "user: "
SYSTEM "Be brief."
MESSAGE user Hi
LICENSE "As you like."
"""


@pytest.fixture
def store(tmp_path: Path, demo_gguf: Path) -> Store:
    """A store with one model, `mine`."""
    store = Store(tmp_path / "models")
    create(store, "mine", parse(MODELFILE.format(path=demo_gguf)), tmp_path)
    return store


@pytest.fixture
def client(store: Store) -> httpx.AsyncClient:
    settings = Settings(cache_ram=0)
    app = create_app(settings, ModelManager(settings, store), Traffic())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_client_that_reads_no_html_is_told_that_ollama_runs(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert (answer.status_code, answer.text) == (200, "Ollama is running")
    assert (await client.head("/")).status_code == 200
    page = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")


async def test_the_version_is_an_ollama_release(client: httpx.AsyncClient) -> None:
    version = (await client.get("/api/version")).json()["version"]
    assert [int(part) >= 0 for part in version.split(".")] == [True] * 3
    assert (await client.head("/api/version")).status_code == 200


async def test_models_are_listed_with_their_tags(client: httpx.AsyncClient, store: Store, demo_gguf: Path) -> None:
    store.copy("mine", "other:v2")
    models = (await client.get("/api/tags")).json()["models"]
    assert {model["name"] for model in models} == {"mine:latest", "other:v2"}
    model = models[0]
    assert model["model"] == model["name"]
    assert model["size"] == demo_gguf.stat().st_size
    assert len(model["digest"]) == 64
    assert model["details"]["format"] == "gguf"
    assert model["details"]["families"] == [model["details"]["family"]]
    assert model["details"]["quantization_level"] == "F16"
    assert (await client.get("/api/ps")).json() == {"models": []}


@pytest.mark.parametrize("body", [{"model": "mine"}, {"model": "Mine:latest"}, {"name": "mine"}])
async def test_a_model_is_shown(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    shown = (await client.post("/api/show", json=body)).json()
    assert "PARAMETER temperature 0.25" in shown["modelfile"]
    assert shown["parameters"].split() == ["temperature", "0.25", "stop", '"END"', "stop", '"user:', '"']
    assert shown["system"] == "Be brief."
    assert shown["license"] == "As you like."
    assert shown["messages"] == [{"role": "user", "content": "Hi"}]
    assert "messages" in shown["template"]
    assert shown["capabilities"][0] == "completion"
    family = shown["details"]["family"]
    assert shown["model_info"]["general.architecture"] == family
    assert shown["model_info"][f"{family}.context_length"] > 0
    assert shown["model_info"]["general.parameter_count"] > 0
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    verbose = (await client.post("/api/show", json={**body, "verbose": True})).json()
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) > 100


async def test_a_served_file_that_is_gone_hides_no_other_model(
    store: Store, demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "served.gguf"
    path.write_bytes(demo_gguf.read_bytes())
    monkeypatch.setenv("BRIM_HOME", str(tmp_path))
    settings = Settings(cache_ram=0, threads=1, ctx=256)
    manager = ModelManager(settings, store)
    transport = httpx.ASGITransport(create_app(settings, manager, Traffic()), raise_app_exceptions=False)
    try:
        manager.want(resolve(str(path), store))
        await manager.wait_until_loaded()
        path.unlink()
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            listed = (await client.get("/api/tags")).json()["models"]
            assert {model["name"] for model in listed} == {"mine:latest", "served:latest"}
            (running,) = (await client.get("/api/ps")).json()["models"]
            assert running["name"] == "served:latest"
            assert running["size"] > 0
            assert (await client.post("/api/show", json={"model": "mine"})).status_code == 200
            unload = await client.post("/api/generate", json={"model": "mine", "keep_alive": 0})
            assert unload.json()["done_reason"] == "unload"
            assert "served.gguf cannot be read" in error_of(
                await client.post("/api/show", json={"model": "served"}), 404
            )
    finally:
        await manager.stop()


async def test_a_body_is_json_whatever_it_says_it_is(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await client.post("/api/show", content='{"model": "mine"}', headers=headers)).status_code == 200
    assert (await client.post("/api/show", content='{"model": "mine"}')).status_code == 200


async def test_a_copy_shares_the_files_and_goes_alone(client: httpx.AsyncClient, store: Store) -> None:
    answer = await client.post("/api/copy", json={"source": "mine:latest", "destination": "twin"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert store.get("twin").digest == store.get("mine").digest
    answer = await client.request("DELETE", "/api/delete", json={"name": "mine"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert [manifest.name for manifest in store.list()] == ["twin"]


async def test_a_model_is_created_from_another(client: httpx.AsyncClient, store: Store) -> None:
    body = {
        "model": "new",
        "from": "mine:latest",
        "system": "Speak like a pirate.",
        "parameters": {"temperature": 0.5, "num_predict": 20, "stop": ["a", "b"]},
        "messages": [{"role": "user", "content": "Ahoy"}],
        "license": ["one", "two"],
    }
    lines = lines_of(await client.post("/api/create", json=body))
    assert lines[-1] == {"status": "success"}
    made = store.get("new")
    assert made.system == "Speak like a pirate."
    assert dict(made.parameters.items()) == {"temperature": 0.5, "num_predict": 20, "stop": ("a", "b")}
    assert [message.text for message in made.messages] == ["Ahoy"]
    assert made.licenses == ("one", "two")


async def test_a_model_is_created_from_a_modelfile_and_quantized(client: httpx.AsyncClient, store: Store) -> None:
    body = {"model": "small", "modelfile": "FROM mine\nQUANTIZE Q8_0\nSYSTEM Short.\n", "stream": False}
    answer = await client.post("/api/create", json=body)
    assert answer.json() == {"status": "success"}
    assert store.get("small").details.quantization == "Q8_0"
    lines = lines_of(await client.post("/api/create", json={"model": "smaller", "from": "mine", "quantize": "q4_0"}))
    assert any(line.get("total", 0) > 0 and "Q4_0" in line["status"] for line in lines)
    assert store.get("smaller").details.quantization == "Q4_0"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def test_a_model_is_made_of_an_uploaded_file(client: httpx.AsyncClient, store: Store, demo_gguf: Path) -> None:
    content = demo_gguf.read_bytes() + bytes(64)  # another file than that of the model in the store
    blob = f"/api/blobs/{digest_of(content)}"
    assert (await client.head(blob)).status_code == 404
    assert (await client.post(blob, content=content)).status_code == 201
    assert (await client.head(blob)).status_code == 200
    assert (await client.post(blob, content=b"")).status_code == 200
    body = {"model": "sent", "files": {"demo.gguf": digest_of(content)}, "system": "Be kind.", "stream": False}
    assert (await client.post("/api/create", json=body)).json() == {"status": "success"}
    made = store.get("sent")
    assert (made.digest, made.system) == (digest_of(content), "Be kind.")
    assert store.model_path(made).read_bytes() == content
    assert not [*(store.root / "uploads").iterdir()]
    assert (await client.head(blob)).status_code == 200, "the store has it"
    again = {"model": "again", "files": {"demo.gguf": digest_of(content)}, "stream": False}
    assert (await client.post("/api/create", json=again)).status_code == 200


async def test_an_upload_that_is_not_what_it_says_leaves_nothing(client: httpx.AsyncClient, store: Store) -> None:
    message = error_of(await client.post(f"/api/blobs/{digest_of(b'a')}", content=b"b"), 400)
    assert digest_of(b"b") in message
    assert not [*(store.root / "uploads").iterdir()]


async def test_a_file_that_is_no_model_is_refused_when_a_model_is_made_of_it(client: httpx.AsyncClient) -> None:
    content = b"This is no GGUF file."
    assert (await client.post(f"/api/blobs/{digest_of(content)}", content=content)).status_code == 201
    body = {"model": "x", "files": {"x.gguf": digest_of(content)}, "stream": False}
    assert "GGUF" in error_of(await client.post("/api/create", json=body), 400)


async def test_uploads_have_a_bound_together(store: Store) -> None:
    settings = Settings(cache_ram=0, max_upload=100)
    app = create_app(settings, ModelManager(settings, store), Traffic())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        assert (await client.post(f"/api/blobs/{digest_of(b'a' * 60)}", content=b"a" * 60)).status_code == 201
        message = error_of(await client.post(f"/api/blobs/{digest_of(b'b' * 60)}", content=b"b" * 60), 413)
        assert "100 B" in message
        old, now = 0, time.time()
        for path in (store.root / "uploads").iterdir():
            os.utime(path, (old, now - KEPT_SECONDS - 1))
        assert (await client.post(f"/api/blobs/{digest_of(b'b' * 60)}", content=b"b" * 60)).status_code == 201
        assert [path.name for path in (store.root / "uploads").iterdir()] == [digest_of(b"b" * 60).replace(":", "-")]


REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "show", {"model": "absent"}, 404, "'absent' not found"),
    ("POST", "show", {"model": "../x"}, 404, "not found"),
    ("POST", "show", {}, 400, "'model' is missing"),
    ("POST", "show", {"model": ""}, 400, "model"),
    ("POST", "show", {"model": "mine", "frobnicate": 1}, 400, "'frobnicate' is not a known field"),
    ("POST", "copy", {"source": "absent", "destination": "x"}, 404, "absent"),
    ("POST", "copy", {"source": "mine", "destination": "a/b"}, 400, "no model name"),
    ("DELETE", "delete", {"model": "absent"}, 404, "absent"),
    ("POST", "pull", {"model": "llama3.2"}, 404, "brim fetches none"),
    ("POST", "push", {"model": "mine"}, 501, "does not push"),
    ("POST", "blobs/sha256:00", {}, 400, "64 hexadecimal digits"),
    ("POST", f"blobs/sha256:{'0' * 64}", {}, 400, "the file's digest is"),
    ("POST", "create", {"model": "x"}, 400, "either 'from'"),
    ("POST", "create", {"model": "x", "from": "absent"}, 404, "absent"),
    ("POST", "create", {"model": "x", "from": "/etc/passwd"}, 404, "may read the server's files"),
    ("POST", "create", {"model": "x", "from": "."}, 404, "may read the server's files"),
    ("POST", "create", {"model": "x", "modelfile": "FROM ./demo.gguf"}, 404, "may read the server's files"),
    ("POST", "create", {"model": "x", "modelfile": "FROM mine\nADAPTER /etc/passwd"}, 400, "ADAPTER"),
    ("POST", "create", {"model": "x", "modelfile": "FROM mine\nDRAFT /etc/passwd"}, 404, "DRAFT"),
    ("POST", "create", {"model": "x", "modelfile": "FROM mine\nPROJECTOR /etc/passwd"}, 400, "PROJECTOR names a file"),
    ("POST", "create", {"model": "x", "modelfile": "FROM mine\nFROM ./mmproj.gguf"}, 400, "PROJECTOR names a file"),
    ("POST", "create", {"model": "x", "modelfile": "FRM mine"}, 400, "did you mean FROM"),
    ("POST", "create", {"model": "x", "from": "mine", "files": {"a.gguf": "sha256:0"}}, 400, "either 'from'"),
    ("POST", "create", {"model": "x", "files": {"a.gguf": "sha256:0"}}, 400, "64 hexadecimal digits"),
    ("POST", "create", {"model": "x", "files": {"a.gguf": f"sha256:{'0' * 64}"}}, 404, "was not uploaded"),
    ("POST", "create", {"model": "x", "files": {"a.safetensors": f"sha256:{'0' * 64}"}}, 400, "no GGUF file"),
    ("POST", "create", {"model": "x", "files": {"a.gguf": "", "b.gguf": ""}}, 400, "one GGUF file"),
    ("POST", "create", {"model": "x", "from": "mine", "adapters": {"a": "sha256:0"}}, 400, "no uploaded adapters"),
    ("POST", "create", {"model": "x", "from": "mine", "template": "{{ .Prompt }}"}, 400, "Go template"),
    ("POST", "create", {"model": "x", "from": "mine", "parameters": {"mirostat": 1}}, 400, "mirostat"),
    ("POST", "create", {"model": "x", "from": "mine", "parameters": {"top_p": 2}}, 400, "from 0 to 1"),
    ("POST", "create", {"model": "x", "from": "mine", "quantize": "Q99"}, 400, "Q99"),
    ("POST", "create", {"model": "a/b", "from": "mine"}, 400, "no model name"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), REFUSED)
async def test_what_cannot_be_done_is_said_in_one_sentence(
    client: httpx.AsyncClient, store: Store, method: str, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    message = error_of(await client.request(method, f"/api/{path}", json=body), status)
    assert words in message
    assert [manifest.name for manifest in store.list()] == ["mine"]


async def test_a_model_that_is_there_need_not_be_pulled(client: httpx.AsyncClient) -> None:
    assert lines_of(await client.post("/api/pull", json={"model": "mine"})) == [{"status": "success"}]
    answer = await client.post("/api/pull", json={"name": "mine:latest", "stream": False})
    assert answer.json() == {"status": "success"}
    assert (await client.head(f"/api/blobs/sha256:{'0' * 64}")).status_code == 404
