from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import platformdirs
import pytest
from msgspec import structs

from server.errors import BrimError
from server.models.files import sha256
from server.models.manifest import Blob, Details, Manifest, Model, ModelName, StoredAdapter, meant
from server.models.parameters import Parameters
from server.models.store import DamagedManifestError, ModelNotFoundError, Store

if TYPE_CHECKING:
    from pathlib import Path

DETAILS = Details(architecture="llama", parameters=1, quantization="F16", context_length=512)


def manifest_of(name: str, blob: Blob, made_from: str = "", **fields: object) -> Manifest:
    model = Model(digest=blob.digest, size=blob.size, details=DETAILS, made_from=made_from)
    manifest = Manifest(schema=1, name=name, model=model, source="a test", created=datetime.now(UTC))
    return structs.replace(manifest, **fields)


def add(store: Store, name: str, content: bytes = b"weights", made_from: str = "") -> Manifest:
    with store.staging() as staging:
        file = staging.folder / "model.gguf"
        file.write_bytes(content)
        manifest = manifest_of(name, staging.put_file(file, move=True), made_from)
        staging.commit(manifest)
    return manifest


def files(store: Store) -> list[str]:
    """All files of the store, but for its lock."""
    return sorted(path.name for path in store.root.rglob("*") if path.is_file() and path.name != "lock")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "brim" / "models")


def test_an_empty_store_is_only_read(store: Store) -> None:
    assert store.list() == []
    assert store.damaged() == []
    assert "demo" not in store
    with pytest.raises(ModelNotFoundError, match="no model 'demo' in the store; `brim list` shows"):
        store.get("demo")
    assert not store.root.exists()


def test_what_comes_in_can_be_got(store: Store) -> None:
    manifest = add(store, "Demo:Q4")
    assert store.get("demo:q4") == manifest
    assert store.model_path(manifest).read_bytes() == b"weights"
    assert store.list() == [manifest]
    assert "demo:q4" in store
    assert "demo" not in store
    assert list((store.root / "staging").iterdir()) == []


def test_every_field_of_a_manifest_is_kept(store: Store) -> None:
    with store.staging() as staging:
        (staging.folder / "a").write_bytes(b"a")
        (staging.folder / "b").write_bytes(b"b")
        model = staging.put_file(staging.folder / "a", move=True)
        adapter = staging.put_file(staging.folder / "b", move=True)
        manifest = manifest_of(
            "all",
            model,
            parameters=Parameters(temperature=0.5, stop=("a", "\n"), num_ctx=100),
            system="",
            template="{{ x }}",
            adapters=(StoredAdapter(digest=adapter.digest, size=adapter.size, scale=0.5),),
            licenses=("MIT",),
            bundled=True,
        )
        staging.commit(manifest)
    assert store.get("all") == manifest
    assert manifest.size == 2


def test_folders_are_private(store: Store) -> None:
    add(store, "demo")
    for folder in (store.root.parent, store.root, *(path for path in store.root.iterdir() if path.is_dir())):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


@pytest.mark.parametrize(
    "name",
    ["", "..", "../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "a:", "a:b:c", "a b", "a@b", "a\n", "é", "x" * 81],
)
def test_names_that_lead_elsewhere_are_refused(store: Store, name: str) -> None:
    with pytest.raises(BrimError, match="is no model name"):
        store.get(name)
    with pytest.raises(BrimError, match="is no model name"):
        store.remove(name)


def test_names() -> None:
    assert str(ModelName.parse("llama-3.2")) == "llama-3.2"
    assert str(ModelName.parse("llama-3.2:latest")) == "llama-3.2"
    assert str(ModelName.parse("Llama_3:Q4_K_M")) == "Llama_3:Q4_K_M"
    assert ModelName.parse("Llama").file_name == "llama@latest.json"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("demo", "demo"),
        ("Demo:latest", "demo"),
        ("demo:LATEST", "demo"),
        ("demo:q4", "demo:Q4"),
        ("hf:owner/model", "hf.co/Owner/Model"),
        ("my model (1)", "My Model (1)"),
        ("My Model (1):latest", "My Model (1)"),
        ("twin", "twin"),
        ("TWIN", "TWIN"),
        ("demo:q8", None),
        ("", None),
    ],
)
def test_which_model_a_name_means(name: str, model: str | None) -> None:
    assert meant(name, ["demo", "demo:Q4", "hf.co/Owner/Model", "My Model (1)", "twin", "TWIN"]) == model


def test_a_similar_name_is_suggested(store: Store) -> None:
    add(store, "smollm2")
    with pytest.raises(ModelNotFoundError, match="did you mean smollm2"):
        store.get("smolm2")


def test_a_file_from_outside_stays_where_it_is(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"mine")
    seen: list[tuple[int, int]] = []
    with store.staging() as staging:
        blob = staging.put_file(file, progress=lambda done, total: seen.append((done, total)))
        staging.commit(manifest_of("mine", blob))
    assert blob.digest == sha256(file)
    assert file.read_bytes() == b"mine"
    assert seen[-1] == (4, 4)
    store.remove("mine")
    assert file.read_bytes() == b"mine"


def test_a_symbolic_link_brings_the_file_it_points_to(store: Store, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with store.staging() as staging:
        manifest = manifest_of("linked", staging.put_file(tmp_path / "link"))
        staging.commit(manifest)
    (tmp_path / "real").unlink()
    assert store.model_path(manifest).read_bytes() == b"real"


def test_same_content_is_stored_once_and_goes_with_its_last_name(store: Store) -> None:
    one = add(store, "one")
    two = add(store, "two")
    assert one.digest == two.digest
    path = store.model_path(one)
    store.remove("one")
    assert path.exists()
    store.remove("two")
    assert not path.exists()
    assert files(store) == []


def test_a_replaced_model_leaves_no_blob(store: Store) -> None:
    old = add(store, "demo", b"old")
    new = add(store, "demo", b"new")
    assert store.list() == [new]
    assert not store.blob_path(old.digest).exists()


def test_copy_shares_the_file(store: Store) -> None:
    original = add(store, "one")
    copied = store.copy("one", "two:tag")
    assert copied == store.get("two:tag") == structs.replace(original, name="two:tag")
    store.remove("one")
    assert store.model_path(copied).exists()
    with pytest.raises(ModelNotFoundError):
        store.copy("one", "three")


def test_find_by_what_it_was_made_from(store: Store) -> None:
    manifest = add(store, "one", made_from="these inputs")
    assert store.find("these inputs") == manifest.model
    assert store.find("others") is None
    store.model_path(manifest).unlink()
    assert store.find("these inputs") is None


def test_what_is_not_committed_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.staging() as staging:
        (staging.folder / "half").write_bytes(b"half")
        staging.put_file(staging.folder / "half", move=True)
        raise RuntimeError
    assert files(store) == []


def test_a_manifest_without_its_blob_is_refused(store: Store) -> None:
    missing = manifest_of("x", Blob(digest="sha256:" + "0" * 64, size=1))
    with store.staging() as staging, pytest.raises(BrimError, match="of x is gone"):
        staging.commit(missing)
    assert store.list() == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"{}", "missing required field `schema`"),
        (b'{"schema": 1}', "missing required field"),
        (b'{"schema": 99}', "written by a newer brim"),
    ],
)
def test_a_damaged_manifest_is_one_sentence_and_harms_no_other(store: Store, content: bytes, says: str) -> None:
    good = add(store, "good")
    bad = add(store, "bad", b"other weights")
    (store.root / "manifests" / "bad@latest.json").write_bytes(content)
    with pytest.raises(DamagedManifestError, match=says):
        store.get("bad")
    assert store.list() == [good]
    assert len(store.damaged()) == 1
    assert "\n" not in store.damaged()[0]
    store.copy("good", "another")
    assert store.blob_path(bad.digest).exists(), "a damaged manifest may name any blob"
    store.remove("bad")
    assert not store.blob_path(bad.digest).exists()
    assert store.damaged() == []


@pytest.mark.parametrize(
    "value", ["md5:abc", "sha256:" + "0" * 63, "sha256:../../../../etc/passwd", "sha256:" + "0" * 64 + "\n"]
)
def test_a_digest_that_is_none_makes_a_manifest_damaged(store: Store, value: str) -> None:
    add(store, "bad")
    path = store.root / "manifests" / "bad@latest.json"
    content = json.loads(path.read_text())
    content["model"]["digest"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedManifestError, match="digest"):
        store.get("bad")


def test_a_blob_that_is_gone_or_cut_is_told(store: Store) -> None:
    manifest = add(store, "demo")
    path = store.model_path(manifest)
    path.write_bytes(b"weight")
    with pytest.raises(BrimError, match="has 6 bytes, and 7 when it was stored"):
        store.model_path(manifest)
    path.unlink()
    with pytest.raises(BrimError, match="is gone; create the model anew"):
        store.model_path(manifest)


def test_verify_finds_a_flipped_bit(store: Store) -> None:
    manifest = add(store, "demo")
    store.verify("demo")
    store.model_path(manifest).write_bytes(b"weightS")
    store.model_path(manifest)
    with pytest.raises(BrimError, match="has changed since it was stored"):
        store.verify("demo")


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BrimError, match="cannot be changed"), Store(tmp_path / "file" / "models").staging():
        pass


def test_default_store_follows_brim_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIM_HOME", str(tmp_path))
    assert Store.default().root == tmp_path / "models"
    monkeypatch.delenv("BRIM_HOME")
    assert str(Store.default().root) == f"{platformdirs.user_data_dir('brim')}/models"


# -- several processes -------------------------------------------------------------------------------------------------


def _add_many(root: Path, worker: int) -> None:
    store = Store(root)
    for number in range(4):
        add(store, f"shared-{number}", b"the same for all")
        add(store, f"own-{worker}-{number}", f"{worker} {number}".encode())
        store.remove(f"own-{worker}-{number}")


def _hang_while_staging(root: Path, ready: Path) -> None:
    with Store(root).staging() as staging:
        (staging.folder / "half.gguf").write_bytes(b"half")
        ready.touch()
        time.sleep(60)


def test_processes_that_create_and_remove_at_once(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_many, args=(store.root, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [manifest.name for manifest in store.list()] == [f"shared-{number}" for number in range(4)]
    assert len(files(store)) == 5
    for manifest in store.list():
        store.verify(manifest.name)


def test_what_a_killed_process_left_goes_at_the_next_change_and_what_a_living_one_makes_stays(
    store: Store, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    ready = tmp_path / "ready"
    worker = context.Process(target=_hang_while_staging, args=(store.root, ready))
    worker.start()
    while not ready.exists():
        time.sleep(0.01)
    add(store, "one")
    assert "half.gguf" in files(store)
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    store.copy("one", "two")
    assert "half.gguf" not in files(store)


def test_a_blob_that_no_manifest_names_goes_at_the_next_change(store: Store) -> None:
    add(store, "one")
    orphan = store.blob_path("sha256:" + "f" * 64)
    orphan.write_bytes(b"its manifest was never written")
    store.copy("one", "two")
    assert not orphan.exists()
