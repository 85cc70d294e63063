"""Fetching models from a hub on this machine, which answers as the real one does and fails as it may."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

import demo
from converter.gguf_format import Field, ValueType, encode_header, lay_out
from converter.gguf_info import read_gguf_info
from server.errors import BrimError
from server.models import hub as hub_module
from server.models.create import create_from_file
from server.models.hub import HubError
from server.models.pull import look_up, pull
from server.models.resolve import ensure_pulled, resolve
from server.models.split import join
from tests.engine.projectors import write_llava
from tests.models.hub_server import FILE, NAME, FakeHub, files_in

if TYPE_CHECKING:
    from pathlib import Path

    from server.models.store import Store


# -- fetching ----------------------------------------------------------------------------------------------------------


def test_the_default_file_comes_into_the_store(store: Store, hub: FakeHub, tiny: bytes) -> None:
    seen: list[tuple[str, int, int]] = []
    manifest = pull(store, look_up(f"hf:{NAME}"), lambda stage, done, total: seen.append((stage, done, total)))
    assert manifest.name == f"hf.co/{NAME}"
    assert manifest.source == f"hf:{NAME}:{FILE}"
    assert store.model_path(manifest).read_bytes() == tiny
    assert store.list() == [manifest]
    assert resolve(f"hf:{NAME}", store).digest == manifest.digest
    assert not list((store.root.parent / "downloads").iterdir())
    fetched = [(done, total) for stage, done, total in seen if stage.startswith("fetching")]
    assert fetched == sorted(fetched)
    assert fetched[-1] == (len(tiny), len(tiny))
    assert "hashing" in {stage for stage, _, _ in seen}


def test_the_type_named_is_fetched(store: Store, hub: FakeHub, tiny: bytes) -> None:
    manifest = pull(store, look_up(f"hf.co/{NAME}:q8_0"))
    assert store.model_path(manifest).read_bytes() == tiny + b"\0"
    assert hub.received == [("Tiny-Q8_0.gguf", "")]


def test_what_the_store_has_is_not_fetched_again(store: Store, hub: FakeHub) -> None:
    first = pull(store, look_up(f"hf:{NAME}"))
    assert pull(store, look_up(f"hf:{NAME}")) == first
    assert pull(store, look_up(f"hf:{NAME}:Q4_K_M")).digest == first.digest
    assert len(hub.received) == 1
    asked = len(hub.requests)
    ensure_pulled(f"hf:{NAME}", store)
    assert len(hub.requests) == asked


def test_a_modelfile_may_name_a_repository(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(f"FROM hf:{NAME}:Q4_K_M\nSYSTEM Be brief.\n")
    made = create_from_file(store, "mine", tmp_path / "Modelfile")
    assert made.digest == store.get(f"hf:{NAME}:Q4_K_M").digest
    assert made.system == "Be brief."


def test_a_checkpoint_is_converted_to_the_type_named(store: Store, hub: FakeHub) -> None:
    files = {path.name: path.read_bytes() for path in demo.CHECKPOINT.iterdir() if path.is_file()}
    hub.repositories["maker/Tiny"] = {**files, "consolidated.safetensors": bytes(9000), "onnx/model.json": b"{}"}
    manifest = pull(store, look_up("hf:maker/Tiny:q8_0"))
    assert manifest.details.quantization == "Q8_0"
    assert manifest.source == "hf:maker/Tiny"
    assert read_gguf_info(store.model_path(manifest)).get("general.name") == "Tiny"
    names = {name for name, _ in hub.received}
    assert "model.safetensors" in names
    assert not names & {"consolidated.safetensors", "model.json"}
    assert look_up("hf:maker/Tiny").target.name == "Q4_K_M"  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(BrimError, match="'Q99' is no quantization type"):
        look_up("hf:maker/Tiny:Q99")


def test_an_architecture_that_cannot_be_converted_is_refused_before_its_weights_come(
    store: Store, hub: FakeHub
) -> None:
    config = json.dumps({"architectures": ["NoSuchForCausalLM"], "model_type": "no_such"}).encode()
    hub.repositories["maker/Odd"] = {"config.json": config, "model.safetensors": bytes(10_000)}
    with pytest.raises(BrimError, match=r"NoSuch|no_such"):
        pull(store, look_up("hf:maker/Odd"))
    assert [name for name, _ in hub.received] == ["config.json"]


def test_an_index_cannot_name_files_elsewhere(store: Store, hub: FakeHub) -> None:
    files = {path.name: path.read_bytes() for path in demo.CHECKPOINT.iterdir() if path.is_file()}
    weights = files.pop("model.safetensors")
    index = json.dumps({"weight_map": {"a": "/etc/secret.safetensors"}}).encode()
    hub.repositories["maker/Sly"] = {
        **files,
        "model.safetensors.index.json": index,
        "model-00001-of-00001.safetensors": weights,
    }
    with pytest.raises(BrimError, match=r"lacks /etc/secret.safetensors, which its"):
        pull(store, look_up("hf:maker/Sly"))


def split(path: Path, folder: Path, count: int) -> list[Path]:
    """A GGUF file in parts, as llama-gguf-split makes them."""
    info, data = read_gguf_info(path), path.read_bytes()
    share = -(-len(info.tensors) // count)
    parts: list[Path] = []
    for number in range(count):
        tensors = info.tensors[number * share : (number + 1) * share]
        layout = lay_out([(tensor.name, tensor.shape, tensor.type) for tensor in tensors])
        fields = {
            **(info.fields if number == 0 else {}),
            "split.no": Field(ValueType.UINT16, number),
            "split.count": Field(ValueType.UINT16, count),
            "split.tensors.count": Field(ValueType.INT32, len(info.tensors)),
        }
        start, end = tensors[0].offset, tensors[-1].offset + tensors[-1].nbytes
        body = data[info.data_start :][start:end]
        parts.append(folder / f"Tiny-F16-{number + 1:05}-of-{count:05}.gguf")
        parts[-1].write_bytes(encode_header(fields, layout) + body)
    return parts


def test_a_split_file_becomes_one(store: Store, hub: FakeHub, demo_gguf: Path, tmp_path: Path) -> None:
    parts = split(demo_gguf, tmp_path, 3)
    hub.repositories["maker/Split"] = {f"F16/{part.name}": part.read_bytes() for part in parts}
    manifest = pull(store, look_up("hf:maker/Split:F16"))
    whole, original = read_gguf_info(store.model_path(manifest)), read_gguf_info(demo_gguf)
    assert whole.fields == original.fields
    assert whole.tensors == original.tensors
    ends = whole.data_start, original.data_start
    assert store.model_path(manifest).read_bytes()[ends[0] :].rstrip(b"\0") == demo_gguf.read_bytes()[ends[1] :].rstrip(
        b"\0"
    )
    assert pull(store, look_up("hf:maker/Split:F16")) == manifest
    assert len(hub.received) == 3


def test_parts_in_another_order_are_not_joined(demo_gguf: Path, tmp_path: Path) -> None:
    parts = split(demo_gguf, tmp_path, 2)
    with pytest.raises(BrimError, match="is not part 1 of 2"):
        join(parts[::-1], tmp_path / "whole.gguf")


# -- a projector beside it ---------------------------------------------------------------------------------------------


@pytest.fixture
def eyes(hub: FakeHub, tiny: bytes, tmp_path: Path) -> bytes:
    """A projector, which the hub has with the model in maker/Seeing."""
    data = write_llava(tmp_path / "projector.gguf").read_bytes()
    hub.repositories["maker/Seeing"] = {FILE: tiny, "mmproj-F32.gguf": bytes(5000), "mmproj-F16.gguf": data}
    return data


def test_a_projector_comes_with_its_model(store: Store, hub: FakeHub, tiny: bytes, eyes: bytes) -> None:
    seen: list[tuple[str, int, int]] = []
    manifest = pull(store, look_up("hf:maker/Seeing"), lambda stage, done, total: seen.append((stage, done, total)))
    assert manifest.projector
    assert store.blob_path(manifest.projector.digest).read_bytes() == eyes
    assert store.model_path(manifest).read_bytes() == tiny
    assert resolve("hf:maker/Seeing", store).projector == store.blob_path(manifest.projector.digest)
    fetched = [(done, total) for stage, done, total in seen if stage.startswith("fetching")]
    assert fetched == sorted(fetched)
    assert fetched[-1] == (len(tiny) + len(eyes),) * 2
    assert [name for name, _ in hub.received] == ["mmproj-F16.gguf", FILE]
    assert pull(store, look_up("hf:maker/Seeing")) == manifest
    assert len(hub.received) == 2
    assert not list((store.root.parent / "downloads").iterdir())


def test_a_projector_alone_is_fetched_for_a_model_that_is_there(store: Store, hub: FakeHub, eyes: bytes) -> None:
    order = look_up("hf:maker/Seeing")
    blind = pull(store, replace(order, projector=None))
    assert blind.projector is None
    seeing = pull(store, order)
    assert (seeing.digest, seeing.created) == (blind.digest, blind.created)
    assert seeing.projector
    assert [name for name, _ in hub.received] == [FILE, "mmproj-F16.gguf"]
    again = pull(store, replace(order, projector=None))
    assert again.projector is None
    assert len(list((store.root / "blobs").iterdir())) == 1


def test_what_is_no_projector_is_refused_before_the_model_comes(store: Store, hub: FakeHub, tiny: bytes) -> None:
    hub.repositories["maker/Odd"] = {FILE: tiny, "mmproj-F16.gguf": bytes(5000)}
    with pytest.raises(BrimError, match=r"the projector mmproj-F16.gguf cannot be read"):
        pull(store, look_up("hf:maker/Odd"))
    assert [name for name, _ in hub.received] == ["mmproj-F16.gguf"]
    hub.lies = {"mmproj-F16.gguf"}
    hub.repositories["maker/Damaged"] = {FILE: tiny + b"\0\0", "mmproj-F16.gguf": bytes(6000)}
    with pytest.raises(HubError, match="has arrived damaged"):
        pull(store, look_up("hf:maker/Damaged"))
    assert store.list() == []


def test_a_full_disk_counts_the_projector(
    store: Store, hub: FakeHub, tiny: bytes, eyes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(store.root.parent.parent)
    free = len(tiny) + len(eyes) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))  # pyright: ignore
    with pytest.raises(BrimError, match=r"needs .* and the disk that holds .* has .* free"):
        pull(store, look_up("hf:maker/Seeing"))
    assert hub.received == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed(store: Store, hub: FakeHub, tiny: bytes) -> None:
    hub.cut_after, hub.cuts = len(tiny) // 3, 2
    manifest = pull(store, look_up(f"hf:{NAME}"))
    assert store.model_path(manifest).read_bytes() == tiny
    starts = [int(range_[6:-1]) if range_ else 0 for _, range_ in hub.received]
    assert len(starts) == 3
    assert starts[0] == 0 < starts[1] < starts[2]


def test_a_token_is_not_shown_to_the_host_that_the_hub_redirects_to(
    store: Store, hub: FakeHub, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.gated, hub.elsewhere = {NAME}, True
    hub.cut_after, hub.cuts = len(tiny) // 2, 1
    assert store.model_path(pull(store, look_up(f"hf:{NAME}"))).read_bytes() == tiny
    assert [range_ != "" for _, path, range_ in hub.requests if "/elsewhere/" in path] == [False, True]
    assert hub.strangers_saw == []


def test_a_later_pull_goes_on_where_a_broken_one_ended(store: Store, hub: FakeHub, tiny: bytes) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(store, look_up(f"hf:{NAME}"), interrupt)
    assert files_in(store.root) == set()
    assert files_in(store.root.parent) == {f"{FILE}.part"}
    manifest = pull(store, look_up(f"hf:{NAME}"))
    assert store.model_path(manifest).read_bytes() == tiny
    assert int(hub.received[-1][1][6:-1]) > len(tiny) // 2
    assert len(files_in(store.root.parent)) == 2


def test_a_download_survives_an_interruption_while_it_is_hashed(store: Store, hub: FakeHub, tiny: bytes) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "hashing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(store, look_up(f"hf:{NAME}"), interrupt)
    assert files_in(store.root) == set()
    assert store.model_path(pull(store, look_up(f"hf:{NAME}"))).read_bytes() == tiny
    assert len(hub.received) == 1


def test_a_hub_without_ranges_sends_all_again(store: Store, hub: FakeHub, tiny: bytes) -> None:
    hub.cut_after, hub.cuts, hub.ranges = len(tiny) // 2, 1, False
    assert store.model_path(pull(store, look_up(f"hf:{NAME}"))).read_bytes() == tiny


def test_a_connection_that_never_brings_anything_is_given_up(store: Store, hub: FakeHub) -> None:
    hub.cut_after, hub.cuts, hub.ranges = 1, 10**6, False
    with pytest.raises(HubError, match="cannot be reached"):
        pull(store, look_up(f"hf:{NAME}"))
    assert len(hub.received) <= 3 + hub_module.RETRIES


def test_content_that_is_not_the_hubs_is_dropped(store: Store, hub: FakeHub, tiny: bytes) -> None:
    hub.lies = {FILE}
    with pytest.raises(HubError, match="has arrived damaged"):
        pull(store, look_up(f"hf:{NAME}"))
    assert files_in(store.root.parent) == set()
    hub.lies = set()
    assert store.model_path(pull(store, look_up(f"hf:{NAME}"))).read_bytes() == tiny


def test_a_gated_repository_needs_a_token(store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = {NAME}
    with pytest.raises(HubError, match=f"{NAME} is gated: accept its terms .* set HF_TOKEN"):
        pull(store, look_up(f"hf:{NAME}"))
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert pull(store, look_up(f"hf:{NAME}")).name in {manifest.name for manifest in store.list()}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the hub refuses .* set HF_TOKEN"),
        (403, "the hub refuses .* set HF_TOKEN"),
        (404, "there is no repository"),
        (429, "too many requests"),
        (503, "fails with status 503"),
    ],
)
def test_each_refusal_is_one_sentence(hub: FakeHub, status: int, words: str) -> None:
    hub.status = status
    with pytest.raises(HubError, match=words) as caught:
        look_up(f"hf:{NAME}")
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_said(store: Store, hub: FakeHub) -> None:
    with pytest.raises(HubError, match="there is no repository maker/Absent") as caught:
        look_up("hf:maker/Absent")
    assert caught.value.missing
    hub.repositories["maker/Words"] = {"README.md": b"words"}
    with pytest.raises(BrimError, match="neither GGUF nor safetensors"):
        look_up("hf:maker/Words")
    with pytest.raises(BrimError, match="`brim pull hf:maker/Absent` fetches it"):
        resolve("hf:maker/Absent", store)


def test_without_a_network_it_says_so(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="while HF_HUB_OFFLINE is set"):
        look_up(f"hf:{NAME}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"the hub at http://127.0.0.1:9 cannot be reached"):
        look_up(f"hf:{NAME}")


def test_a_full_disk_is_told_before_anything_is_fetched(
    store: Store, hub: FakeHub, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(store.root.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(tiny) - 1))  # pyright: ignore
    with pytest.raises(BrimError, match=r"needs .* and the disk that holds .* has .* free"):
        pull(store, look_up(f"hf:{NAME}"))
    assert hub.received == []
