"""From a command or a Modelfile to a model that sees: which projector is taken, what is refused, and what is told."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from typer.testing import CliRunner

from converter.gguf_format import Field, encode_header
from converter.gguf_info import read_gguf_info
from server.api.limits import Traffic
from server.app import create_app
from server.commands.serve import find_models
from server.errors import BrimError
from server.models import loading
from server.models.cli import app as store_commands
from server.models.create import create
from server.models.describe import as_modelfile_text
from server.models.manager import ModelManager
from server.models.manifest import decode, encode
from server.models.modelfile import parse
from server.models.projector import senses_of
from server.models.resolve import ModelSource, resolve
from server.models.store import Store
from server.offload.cli import app as plan_command
from server.settings import Settings
from tests.conftest import ROOT, RunningServer, brim_environment
from tests.engine.projectors import GEMMA, PATCHES, picture, write_llava
from tests.offload.models import write_random

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

LLAMA = replace(GEMMA, arch="llama", window=0)
"""A model that the projectors of the tests fit."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, and below it one with a projector."""
    (tmp_path / "eyes").mkdir()
    write_random(LLAMA, tmp_path / "model.gguf")
    write_llava(tmp_path / "eyes" / "mmproj-model-f16.gguf")
    return tmp_path


@pytest.fixture
def projector(folder: Path) -> Path:
    return folder / "eyes" / "mmproj-model-f16.gguf"


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("BRIM_HOME", str(folder / "home"))
    return Store(folder / "home" / "models")


def make(store: Store, text: str, folder: Path, name: str = "mine") -> None:
    create(store, name, parse(text), folder)


def blobs(store: Store) -> int:
    return len(list((store.root / "blobs").iterdir()))


# -- beside a file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mmproj-x-f16.gguf", "model.mmproj-Q8_0.GGUF", "MMPROJ.gguf"])
def test_the_only_projector_beside_a_file_is_taken_and_told(
    folder: Path, projector: Path, store: Store, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO, "server")
    shutil.copy(projector, folder / name)
    assert resolve(str(folder / "model.gguf"), store).projector == folder / name
    assert [record.message for record in caplog.records] == [
        f"model.gguf gets vision by {name}, which lies beside it; --projector none leaves it out"
    ]


def test_of_several_none_is_taken(
    folder: Path, projector: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("mmproj-a.gguf", "mmproj-b.gguf"):
        shutil.copy(projector, folder / name)
    assert resolve(str(folder / "model.gguf"), store).projector is None
    [record] = caplog.records
    assert "mmproj-a.gguf, mmproj-b.gguf; choose one with --projector" in record.message
    assert (
        resolve(str(folder / "model.gguf"), store, str(folder / "mmproj-b.gguf")).projector == folder / "mmproj-b.gguf"
    )


def test_none_leaves_out_what_lies_beside_or_was_stored(folder: Path, projector: Path, store: Store) -> None:
    make(store, f"FROM model.gguf\nPROJECTOR {projector}", folder)
    shutil.copy(projector, folder / "mmproj.gguf")
    assert resolve("mine", store).projector
    assert resolve("mine", store, "none").projector is None
    assert resolve(str(folder / "model.gguf"), store, "none").projector is None


def test_what_lies_beside_and_is_broken_is_named_with_the_way_out(folder: Path, store: Store) -> None:
    (folder / "mmproj.gguf").write_bytes(b"no model")
    with pytest.raises(BrimError, match=r"mmproj.gguf .* beside model.gguf, and --projector none leaves it out"):
        resolve(str(folder / "model.gguf"), store)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_files_in_each_others_place_are_refused_by_name(folder: Path, projector: Path, store: Store) -> None:
    model = folder / "model.gguf"
    with pytest.raises(BrimError, match=r"model.gguf is a llama model, not a multimodal projector"):
        resolve(str(model), store, str(model))
    with pytest.raises(BrimError, match=r"mmproj-model-f16.gguf is a multimodal projector, not a language model"):
        resolve(str(projector), store)
    with pytest.raises(BrimError, match=r"there is no projector .*absent.gguf"):
        resolve(str(model), store, str(folder / "absent.gguf"))
    for text, words in (
        ("FROM model.gguf\nPROJECTOR model.gguf", "is a llama model, not a multimodal projector"),
        ("FROM model.gguf\nFROM ./model.gguf", "is a llama model, not a multimodal projector"),
        (f"FROM {projector}", "is a multimodal projector, not a language model"),
        (f"FROM model.gguf\nDRAFT {projector}", "is a multimodal projector, not a language model"),
        ("FROM model.gguf\nPROJECTOR absent.gguf", "there is no projector"),
    ):
        with pytest.raises(BrimError, match=words):
            make(store, text, folder)
    assert store.list() == []


def test_a_projector_without_senses_is_refused(folder: Path, projector: Path, store: Store) -> None:
    info = read_gguf_info(projector)
    assert (senses_of(info).vision, senses_of(info).hearing, str(senses_of(info))) == (True, False, "vision")
    blind = folder / "blind.gguf"
    header = encode_header({**info.fields, "clip.has_vision_encoder": Field.boolean(False)}, info.tensors)
    blind.write_bytes(header + projector.read_bytes()[info.data_start :])
    with pytest.raises(BrimError, match="reads neither images nor sounds"):
        resolve(str(folder / "model.gguf"), store, str(blind))


def test_a_projector_goes_with_one_model(folder: Path, projector: Path, store: Store) -> None:
    model = str(folder / "model.gguf")
    with pytest.raises(BrimError, match="--projector goes with one model; name the others'"):
        find_models(Settings(models=(model, model), projector=str(projector)), store)
    make(store, "FROM model.gguf", folder)
    [only] = find_models(Settings(projector=str(projector)), store)
    assert only.projector == projector
    store.copy("mine", "twin")
    with pytest.raises(BrimError, match="the store has several; name it"):
        find_models(Settings(projector=str(projector)), store)
    assert find_models(Settings(projector="none"), store) == []


# -- in the store ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["PROJECTOR", "FROM"])
def test_a_modelfile_names_a_projector(folder: Path, projector: Path, store: Store, keyword: str) -> None:
    make(store, f"FROM model.gguf\n{keyword} ./eyes/mmproj-model-f16.gguf", folder)
    manifest = store.get("mine")
    assert manifest.projector
    assert manifest.size == (folder / "model.gguf").stat().st_size + projector.stat().st_size
    source = resolve("mine", store)
    assert source.projector
    assert source.projector == store.blob_path(manifest.projector.digest)
    assert source.projector.read_bytes() == projector.read_bytes()
    make(store, "FROM mine\nSYSTEM Be brief.", folder, "child")
    make(store, as_modelfile_text(store, manifest), folder, "again")
    store.copy("mine", "twin")
    assert {store.get(name).projector for name in ("child", "again", "twin")} == {manifest.projector}
    for name in ("mine", "child", "again"):
        store.remove(name)
    assert blobs(store) == 2
    store.verify("twin")
    store.blob_path(manifest.projector.digest).unlink()
    with pytest.raises(BrimError, match="of twin is gone"):
        resolve("twin", store)
    store.remove("twin")
    assert blobs(store) == 0


def test_a_manifest_without_a_projector_reads_and_is_written_as_before(folder: Path, store: Store) -> None:
    make(store, "FROM model.gguf", folder)
    manifest = store.get("mine")
    assert b"projector" not in encode(manifest)
    assert decode(encode(manifest)).projector is None


def test_show_tells_of_it(folder: Path, projector: Path, store: Store) -> None:
    make(store, f"FROM model.gguf\nPROJECTOR {projector}", folder)
    shown = CliRunner().invoke(store_commands, ["show", "mine"]).stdout
    [row] = [line for line in shown.splitlines() if line.startswith("projector ")]
    assert "vision, " in row
    assert " KB" in row


def test_the_worker_is_told(folder: Path, projector: Path, store: Store) -> None:
    settings = Settings(cache_ram=0, cache_disk=0, gpu_layers=0)

    def planned(source: ModelSource) -> Any:
        return loading._plan(source, settings, {})[0]  # pyright: ignore[reportPrivateUsage]

    blind = planned(resolve(str(folder / "model.gguf"), store))
    seeing = planned(resolve(str(folder / "model.gguf"), store, str(projector)))
    assert (blind.projector_path, seeing.projector_path) == ("", str(projector))
    assert seeing.projector_device == ""


@pytest.mark.parametrize("option", ["--projector", "--mmproj"])
def test_brim_plan_counts_it(folder: Path, projector: Path, store: Store, option: str) -> None:
    command = ["plan", str(folder / "model.gguf"), "--vram", "8GiB", "--ctx", "512", "--json"]
    for more, found in (([option, str(projector)], [str(projector)]), ([option, "none"], [])):
        result = CliRunner().invoke(plan_command, [*command, *more], catch_exceptions=False)
        assert [companion["path"] for companion in json.loads(result.stdout)["companions"]] == found


async def test_ollamas_show_tells_of_it_before_it_is_loaded(folder: Path, projector: Path, store: Store) -> None:
    make(store, f"FROM model.gguf\nPROJECTOR {projector}", folder)

    async def shown(settings: Settings) -> Any:
        app = create_app(settings, ModelManager(settings, store), Traffic())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as client:
            return (await client.post("/api/show", json={"model": "mine"})).json()

    found = await shown(Settings(cache_ram=0))
    assert "vision" in found["capabilities"]
    assert "audio" not in found["capabilities"]
    assert found["details"]["families"] == ["llama", "clip"]
    assert found["projector_info"]["general.architecture"] == "clip"
    assert found["projector_info"]["clip.vision.projection_dim"] > 0
    assert found["projector_info"]["general.parameter_count"] > 0
    assert "PROJECTOR " in found["modelfile"]
    left_out = await shown(Settings(cache_ram=0, projector="none"))
    assert "vision" not in left_out["capabilities"]
    assert "projector_info" not in left_out


# -- as users do it ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeing_server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    folder = tmp_path_factory.mktemp("seeing")
    model = write_random(LLAMA, folder / "model.gguf")
    eyes = write_llava(folder / "eyes.gguf")
    return start_server(model, "--mmproj", eyes, "--ctx", "512", "--parallel", "2")


def test_a_server_tells_that_its_model_sees(seeing_server: RunningServer) -> None:
    assert seeing_server.get("/props").json()["modalities"] == {"vision": True, "audio": False}
    shown = seeing_server.post("/api/show", {"model": "model"}).json()
    assert "vision" in shown["capabilities"]


IMAGE = base64.b64encode(picture(1)).decode()
URL = f"data:image/png;base64,{IMAGE}"
TEXT = "What is this?"
SHOWN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/chat/completions": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}], "max_tokens": 4},
        {"type": "image_url", "image_url": {"url": URL}},
    ),
    "/v1/responses": (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}], "max_output_tokens": 16},
        {"type": "input_image", "image_url": URL},
    ),
    "/v1/messages": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}], "max_tokens": 4},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
    ),
}
"""For each path a request, and the part that shows an image in its message."""
PROMPT_COUNTS = ("prompt_tokens", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def _read(server: RunningServer, path: str, body: dict[str, Any]) -> int:
    """How many tokens the model read."""
    answer = server.post(path, {"model": "model", **body})
    assert answer.status_code == 200, answer.text
    return sum(answer.json()["usage"].get(name) or 0 for name in PROMPT_COUNTS)


@pytest.mark.parametrize("path", SHOWN)
def test_each_protocol_shows_images(seeing_server: RunningServer, path: str) -> None:
    body, image = SHOWN[path]
    text_alone = _read(seeing_server, path, body)
    (name,) = body.keys() & {"messages", "input"}
    message = body[name][0]
    shown = {**message, "content": [*message["content"], image]}
    assert _read(seeing_server, path, {**body, name: [shown]}) - text_alone >= PATCHES


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_ollamas_requests_show_images(seeing_server: RunningServer, path: str) -> None:
    def read(**images: Any) -> int:
        said: dict[str, Any] = {"messages": [{"role": "user", "content": TEXT, **images}]}
        body = said if path == "/api/chat" else {"prompt": TEXT, **images}
        asked = {"model": "model", "stream": False, "options": {"num_predict": 4}, **body}
        answer = seeing_server.post(path, asked)
        assert answer.status_code == 200, answer.text
        return answer.json()["prompt_eval_count"]

    assert read(images=[IMAGE]) - read() >= PATCHES


@pytest.mark.slow
def test_a_projector_of_another_model_ends_in_one_sentence(tmp_path: Path) -> None:
    model = write_random(replace(LLAMA, n_embd=128, head=32), tmp_path / "wide.gguf")
    eyes = write_llava(tmp_path / "eyes.gguf")
    command = [sys.executable, "-m", "server.cli", "serve", model, "--projector", eyes, "--port", "0"]
    ended = subprocess.run(
        command, cwd=ROOT, env=brim_environment(tmp_path), capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith(f"Error: the projector {eyes} does not fit wide")
    assert "Traceback" not in ended.stderr
