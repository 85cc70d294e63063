from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

import demo
from converter import convert, read_gguf_info
from server.errors import BrimError
from server.models.cli import app
from server.models.create import MODELFILES, create, create_from_file, default_type, ensure_demo
from server.models.modelfile import Message, Modelfile, parse
from server.models.parameters import Parameters
from server.models.store import Store

if TYPE_CHECKING:
    from server.models.manifest import Manifest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home / "models")


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoint as an F16 GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(demo.CHECKPOINT, path, "F16")
    return path


@pytest.fixture(scope="module")
def q4(f16: Path) -> Path:
    path = f16.with_name("tiny-q4.gguf")
    convert(demo.CHECKPOINT, path, "Q4_0")
    return path


def make(store: Store, text: str, folder: Path, name: str = "mine") -> Manifest:
    return create(store, name, parse(text), folder)


def set_context_length(checkpoint: Path, length: int) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": length}))


def stored_files(store: Store) -> set[str]:
    return {path.name for path in store.root.rglob("*") if path.is_file() and path.name != "lock"}


# -- what FROM names ---------------------------------------------------------------------------------------------------


def test_from_a_checkpoint(store: Store) -> None:
    seen: list[tuple[str, int, int]] = []
    modelfile = Modelfile(source="checkpoint", quantize="F16")
    manifest = create(
        store,
        "mine",
        modelfile,
        demo.CHECKPOINT.parent,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    info = read_gguf_info(store.model_path(manifest))
    assert info.get("general.name") == "mine"
    assert manifest.details.quantization == "F16"
    assert manifest.details.parameters == info.parameters > 1_000_000
    assert manifest.details.context_length == info.get("llama.context_length") > 1000
    assert manifest.source == str(demo.CHECKPOINT)
    assert {stage for stage, _, _ in seen} == {"converting checkpoint to F16", "hashing"}
    assert all(0 <= done <= total for _, done, total in seen)


def test_a_small_checkpoint_becomes_q8_0(store: Store) -> None:
    assert make(store, "FROM ./checkpoint", demo.CHECKPOINT.parent).details.quantization == "Q8_0"
    assert default_type(3_999_999_999) == "Q8_0"
    assert default_type(8_000_000_000) == "Q4_K_M"


def test_from_a_gguf_file_takes_it_as_it_is(store: Store, f16: Path) -> None:
    manifest = make(store, "FROM ./tiny.gguf", f16.parent)
    assert store.model_path(manifest).read_bytes() == f16.read_bytes()
    assert make(store, "FROM tiny.gguf\nQUANTIZE f16", f16.parent, "same").digest == manifest.digest


def test_from_a_gguf_file_quantized(store: Store, f16: Path) -> None:
    manifest = make(store, "FROM tiny.gguf\nQUANTIZE q4_k_m", f16.parent)
    assert manifest.details.quantization == "Q4_K_M"
    assert manifest.size < f16.stat().st_size / 2
    types = {tensor.type.name for tensor in read_gguf_info(store.model_path(manifest)).tensors}
    assert "Q4_K" in types


def test_from_a_name_inherits_and_overrides(store: Store, f16: Path) -> None:
    parent = make(
        store,
        "FROM tiny.gguf\nSYSTEM Be brief.\nTEMPLATE {{ messages[0].content }}\nPARAMETER temperature 0.5\n"
        "PARAMETER top_k 9\nPARAMETER stop a\nMESSAGE user Hi\nLICENSE MIT",
        f16.parent,
        "parent",
    )
    child = make(store, "FROM parent\nPARAMETER temperature 0\nPARAMETER stop b\nSYSTEM Be long.", f16.parent, "child")
    assert child.digest == parent.digest
    assert child.parameters == Parameters(temperature=0.0, top_k=9, stop=("b",))
    assert child.system == "Be long."
    assert child.template == parent.template == "{{ messages[0].content }}"
    assert child.messages == (Message("user", "Hi"),)
    assert child.licenses == ("MIT",)
    assert child.source == "parent"
    bare = make(store, 'FROM parent\nSYSTEM ""\nTEMPLATE ""\nMESSAGE assistant Yes?', f16.parent, "bare")
    assert bare.system == ""
    assert bare.template is None
    assert bare.messages == (Message("assistant", "Yes?"),)
    store.remove("parent")
    assert store.model_path(child).is_file()


def test_from_a_name_quantized(store: Store, f16: Path) -> None:
    make(store, "FROM tiny.gguf", f16.parent, "parent")
    child = make(store, "FROM parent\nQUANTIZE Q8_0", f16.parent, "child")
    assert child.details.quantization == "Q8_0"


def test_a_name_goes_before_a_folder_and_a_slash_means_a_path(store: Store, f16: Path) -> None:
    make(store, "FROM tiny.gguf", f16.parent, "checkpoint")
    assert make(store, "FROM checkpoint", demo.CHECKPOINT.parent).source == "checkpoint"
    assert make(store, "FROM ./checkpoint", demo.CHECKPOINT.parent).source == str(demo.CHECKPOINT)


def test_draft(store: Store, f16: Path) -> None:
    manifest = make(store, f"FROM {f16}\nDRAFT ./draft", demo.DRAFT.parent)
    assert manifest.draft
    assert manifest.draft.digest != manifest.digest
    assert read_gguf_info(store.blob_path(manifest.draft.digest)).architecture == "llama"


def write_adapter(path: Path, architecture: str) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((1, 256), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.zeros((256, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_adapters(store: Store, f16: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "fits.gguf", "llama")
    write_adapter(tmp_path / "other.gguf", "gemma2")
    manifest = make(store, f"FROM {f16}\nADAPTER ./fits.gguf 0.5", tmp_path)
    assert [adapter.scale for adapter in manifest.adapters] == [0.5]
    assert store.blob_path(manifest.adapters[0].digest).read_bytes() == (tmp_path / "fits.gguf").read_bytes()
    with pytest.raises(BrimError, match="for the architecture gemma2, and the model is llama"):
        make(store, f"FROM {f16}\nADAPTER ./other.gguf", tmp_path)
    with pytest.raises(BrimError, match="but not an adapter"):
        make(store, f"FROM {f16}\nADAPTER {f16}", tmp_path)
    with pytest.raises(BrimError, match="but not a language model's"):
        make(store, "FROM ./fits.gguf", tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FROM ./none", "FROM names ./none, and there is no"),
        ("FROM none", "neither such a model in the store nor"),
        ("FROM none.gguf", "FROM names none.gguf, and there is no"),
        ("FROM hf:owner/repo", "`brim pull hf:owner/repo` fetches it"),
        ("FROM ./empty", "has no config.json"),
        ("FROM ./notes.txt", "not a GGUF file"),
        ("FROM ./cut.gguf", "truncated"),
        ("FROM tiny.gguf\nDRAFT ./none", "DRAFT names ./none"),
        ("FROM tiny.gguf\nADAPTER ./none", "ADAPTER names ./none"),
        ("FROM tiny.gguf\nADAPTER ./empty", "brim takes adapters as GGUF files"),
        ("FROM tiny.gguf\nQUANTIZE F32", "would make it larger but not better"),
        ("FROM tiny-q4.gguf\nQUANTIZE Q8_0", "would make it larger but not better"),
        ("FROM tiny-q4.gguf\nQUANTIZE Q2_K", "would lose more than quantizing the original"),
        ("FROM tiny.gguf\nTEMPLATE {% if %}", "TEMPLATE"),
    ],
)
def test_refusals_leave_nothing(store: Store, f16: Path, q4: Path, tmp_path: Path, text: str, says: str) -> None:
    folder = tmp_path / "here"
    (folder / "empty").mkdir(parents=True)
    (folder / "notes.txt").write_text("no model")
    (folder / "cut.gguf").write_bytes(f16.read_bytes()[:-100_000])
    (folder / "tiny.gguf").symlink_to(f16)
    (folder / "tiny-q4.gguf").symlink_to(q4)
    with pytest.raises(BrimError, match=says) as raised:
        make(store, text, folder)
    assert "\n" not in str(raised.value)
    assert not store.root.exists() or stored_files(store) == set()


# -- the same again ----------------------------------------------------------------------------------------------------


def test_the_same_again_makes_nothing(store: Store) -> None:
    stages: list[str] = []

    def note(stage: str, _done: int, _total: int) -> None:
        stages.append(stage)

    modelfile = Modelfile(source="checkpoint", quantize="F16")
    first = create(store, "mine", modelfile, demo.CHECKPOINT.parent, progress=note)
    stages.clear()
    assert create(store, "mine", modelfile, demo.CHECKPOINT.parent, progress=note) == first
    second = create(store, "other", modelfile, demo.CHECKPOINT.parent, progress=note)
    assert second.model == first.model
    assert stages == []


def test_a_changed_checkpoint_is_converted_anew(store: Store, tmp_path: Path) -> None:
    shutil.copytree(demo.CHECKPOINT, tmp_path / "checkpoint")
    first = make(store, "FROM ./checkpoint\nQUANTIZE F16", tmp_path)
    set_context_length(tmp_path / "checkpoint", 1000)
    second = make(store, "FROM ./checkpoint\nQUANTIZE F16", tmp_path)
    assert first.details.context_length != second.details.context_length == 1000
    assert len(list((store.root / "blobs").iterdir())) == 1


def test_sampling_that_a_checkpoint_recommends(store: Store, tmp_path: Path) -> None:
    shutil.copytree(demo.CHECKPOINT, tmp_path / "checkpoint")
    config = tmp_path / "checkpoint" / "generation_config.json"
    config.write_text('{"do_sample": true, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1}')
    manifest = make(store, "FROM ./checkpoint\nPARAMETER top_k 5", tmp_path)
    assert manifest.parameters == Parameters(temperature=0.6, top_k=5, repeat_penalty=1.1)
    config.write_text('{"do_sample": true, "top_p": 7}')
    with pytest.raises(BrimError, match="top_p takes a number from 0 to 1, not 7"):
        make(store, "FROM ./checkpoint", tmp_path)


def test_ended_while_converting_leaves_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(f"FROM {demo.CHECKPOINT}\nQUANTIZE Q4_K_M")
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from server.models.create import create_from_file\n"
        "from server.models.store import Store\n"
        f"create_from_file(Store(Path({str(store.root)!r})), 'mine', Path({str(tmp_path / 'Modelfile')!r}),\n"
        "    progress=lambda stage, done, total: done and os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -9
    assert stored_files(store) != set(), "the process was to be killed in the midst of it"
    with store.staging():
        pass
    assert stored_files(store) == set()


# -- the demo model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation's Modelfiles and demo checkpoint, to be changed as another version of brim would."""
    shutil.copytree(MODELFILES / "demo", tmp_path / "Modelfiles" / "demo")
    shutil.copytree(demo.CHECKPOINT, tmp_path / "demo" / "checkpoint")
    monkeypatch.setattr("server.models.create.MODELFILES", tmp_path / "Modelfiles")
    return tmp_path / "demo" / "checkpoint"


@pytest.mark.usefixtures("bundle")
def test_demo_comes_into_an_empty_store_and_stays(store: Store) -> None:
    manifest = ensure_demo(store)
    assert manifest
    assert manifest.name == "demo"
    assert ensure_demo(store) == manifest
    assert store.list() == [manifest]


def test_demo_is_made_anew_when_brim_brings_another(store: Store, bundle: Path) -> None:
    old = ensure_demo(store)
    set_context_length(bundle, 1000)
    new = ensure_demo(store)
    assert old
    assert new
    assert old.details.context_length != new.details.context_length == 1000
    assert store.list() == [new]


@pytest.mark.usefixtures("bundle")
def test_demo_is_made_anew_when_it_is_damaged(store: Store) -> None:
    first = ensure_demo(store)
    assert first
    (store.root / "manifests" / "demo@latest.json").write_bytes(b"")
    assert ensure_demo(store)
    store.model_path(first).unlink()
    again = ensure_demo(store)
    assert again
    assert store.model_path(again).is_file()


@pytest.mark.usefixtures("bundle")
def test_demo_does_not_come_back_beside_other_models_nor_replace_the_users_own(store: Store, f16: Path) -> None:
    mine = make(store, "FROM tiny.gguf", f16.parent, "mine")
    assert ensure_demo(store) is None
    assert store.list() == [mine]
    own = make(store, "FROM tiny.gguf\nSYSTEM My own.", f16.parent, "demo")
    assert ensure_demo(store) == own


def test_every_modelfile_of_the_project_can_be_read() -> None:
    paths = sorted(MODELFILES.glob("*/Modelfile"))
    assert MODELFILES / "demo" / "Modelfile" in paths
    for path in paths:
        parse(path.read_text(), str(path))


# -- the commands ------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refusal(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.usefixtures("home")
def test_commands(f16: Path, tmp_path: Path) -> None:
    assert "No models yet" in run("list")
    (tmp_path / "Modelfile").write_text(f"FROM {f16}\nSYSTEM Be brief.\nPARAMETER stop end\nPARAMETER top_k 7\n")
    assert "mine: llama, " in run("create", "mine", "-f", tmp_path / "Modelfile")
    run("cp", "mine", "second:copy")
    table = run("list")
    assert "mine" in table
    assert "second:copy" in table
    assert "F16" in table
    assert run("show", "mine", "--system") == "Be brief.\n"
    assert "top_k" in run("show", "mine", "--parameters")
    assert "<|im_start|>" in run("show", "mine", "--template")
    assert "context length" in run("show", "mine")
    assert "as it was stored" in run("show", "mine", "--verify")
    run("rm", "mine", "second:copy")
    assert "No models yet" in run("list")


def test_the_modelfile_that_show_prints_makes_the_same_model(store: Store, f16: Path, tmp_path: Path) -> None:
    first = make(
        store, f'FROM {f16}\nSYSTEM Be brief.\nMESSAGE user Hi\nPARAMETER stop "a "\nLICENSE MIT', tmp_path, "first"
    )
    (tmp_path / "Modelfile").write_text(run("show", "first", "--modelfile"))
    second = create_from_file(store, "second", tmp_path / "Modelfile")
    assert (second.digest, second.parameters, second.system, second.messages, second.licenses) == (
        *(first.digest, first.parameters, first.system, first.messages, first.licenses),
    )


@pytest.mark.usefixtures("home")
def test_commands_fail_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FORM x")
    assert "Modelfile, line 1: 'FORM' is no Modelfile keyword; did you mean FROM?" in refusal(
        "create", "x", "-f", tmp_path / "Modelfile"
    )
    assert "cannot be read: No such file" in refusal("create", "x", "-f", tmp_path / "none")
    assert "no model 'x'" in refusal("show", "x")
    assert "no model 'x'" in refusal("rm", "x")
    assert "no model 'x'" in refusal("cp", "x", "y")
    assert "is no model name" in refusal("rm", "../x")


def test_list_shows_the_others_beside_a_damaged_manifest(store: Store, f16: Path) -> None:
    make(store, "FROM tiny.gguf", f16.parent, "good")
    make(store, "FROM tiny.gguf", f16.parent, "bad")
    (store.root / "manifests" / "bad@latest.json").write_bytes(b"{")
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    assert "good" in result.stdout
    assert "bad" not in result.stdout
    assert "the manifest of bad:latest is damaged" in result.stderr
