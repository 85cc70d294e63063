"""A draft and a projector beside a model: where they go, what they take, and that the model is planned in the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from converter.gguf_format import Field, TensorType, encode_header, lay_out
from converter.gguf_info import read_gguf_info
from server.engine.load_spec import LoadSpec
from server.errors import BrimError
from server.offload import solving
from server.offload.asking import ask
from server.offload.calibration import UNKNOWN_CPU, guess
from server.offload.devices import Device, Machine
from server.offload.drafting import BATCH, Draft, draft_placement
from server.offload.host import HostMemory
from server.offload.placing import companions_of
from server.offload.projector import Projector
from server.offload.questions import DryRun, DryRunResult
from server.offload.solving import Outcome, solve
from server.offload.wish import GpuLayers, Wish
from tests.offload.models import GEMMA_2_27B, LLAMA_3_8B, RANDOM_160M, Shape, write_hollow

if TYPE_CHECKING:
    from pathlib import Path

    from converter.gguf_info import GGUFInfo
    from server.offload.companion import Companion

MIB, GIB = 1 << 20, 1 << 30
SMALL = replace(LLAMA_3_8B, layers=16, n_embd=2048, heads=16, kv_heads=8, n_ff=8192, tied=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GGUFInfo:
    return read_gguf_info(write_hollow(LLAMA_3_8B, tmp_path_factory.mktemp("model") / "8b.gguf"))


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hollow(SMALL, tmp_path_factory.mktemp("draft") / "1b.gguf")


def _card(mib: int, number: int = 0, bandwidth: float = 300e9) -> Device:
    size = mib * MIB
    return Device(f"CARD{number}", "a card", "CUDA", size, size, bandwidth=bandwidth, link=10e9, hypothetical=True)


def _solve(
    model: GGUFInfo,
    companions: tuple[Companion, ...],
    *cards: Device,
    gpu_layers: GpuLayers = "auto",
    context: int = 2048,
) -> Outcome:
    machine = Machine(HostMemory(64 * GIB, 64 * GIB), cards)
    speeds = {card.name: guess(card) for card in cards} | {"CPU": UNKNOWN_CPU}
    wish = Wish(context, 2, gpu_layers=gpu_layers, companions=companions)
    return solve(model, machine, wish, speeds, verify=False)


def test_a_draft_goes_whole_to_the_device_where_both_fit(model: GGUFInfo, draft: Path) -> None:
    outcome = _solve(model, companions_of(draft=draft), _card(12 << 10))
    (guest,) = outcome.guests
    assert guest.home == "CARD0"
    assert outcome.plan.whole
    placement = draft_placement(guest)
    assert (placement.devices, placement.n_gpu_layers) == (("CARD0",), SMALL.layers + 1)
    assert "draft on CARD0" in outcome.placement().summary


@pytest.mark.parametrize("mib", [600, 1200, 2400, 4000, 5600, 7200])
def test_model_and_draft_together_never_exceed_a_device(model: GGUFInfo, draft: Path, mib: int) -> None:
    outcome = _solve(model, companions_of(draft=draft), _card(mib), _card(mib // 2, 1))
    for device in outcome.machine.devices:
        own = sum(stretch.total for stretch in outcome.plan.stretches if stretch.device == device.name)
        assert own + outcome.guests_on(device.name) <= outcome.budgets[device.name]


@dataclass(frozen=True)
class _Fixed(Draft):
    """A draft that has one home only."""

    home: str = "CPU"

    def homes(self, machine: Machine) -> tuple[str, ...]:
        return (self.home,)


@pytest.mark.parametrize("mib", [2400, 4000, 6400, 12 << 10])
def test_its_home_is_the_one_with_which_a_token_takes_least(model: GGUFInfo, draft: Path, mib: int) -> None:
    def seconds(outcome: Outcome) -> float:
        (guest,) = outcome.guests
        speeds = {"CARD0": guess(_card(mib)), "CPU": UNKNOWN_CPU}
        return guest.companion.seconds(outcome.plan.seconds, guest.home, outcome.wish, speeds)

    info = read_gguf_info(draft)
    chosen = seconds(_solve(model, (Draft(info),), _card(mib)))
    assert chosen <= min(seconds(_solve(model, (_Fixed(info, home),), _card(mib))) for home in ("CPU", "CARD0"))


def test_layers_that_the_user_asked_for_come_before_the_draft(model: GGUFInfo, draft: Path) -> None:
    card = _card(5900)
    alone = _solve(model, (), card, gpu_layers="all")
    beside = _solve(model, companions_of(draft=draft), card, gpu_layers="all")
    assert beside.plan.n_gpu_layers == alone.plan.n_gpu_layers == LLAMA_3_8B.layers + 1
    assert beside.guests[0].home == "CPU"


def test_an_open_context_leaves_room_for_the_draft_s_own(model: GGUFInfo, draft: Path) -> None:
    outcome = _solve(model, companions_of(draft=draft), _card(8 << 10), context=0)
    (guest,) = outcome.guests
    assert guest.home == "CARD0"
    assert guest.on_device.kv == 2 * outcome.wish.context * SMALL.layers * 2 * SMALL.kv_heads * SMALL.head * 2
    assert outcome.wish.context <= _solve(model, (), _card(8 << 10), context=0).wish.context


def test_without_a_device_the_draft_is_on_the_cpu(model: GGUFInfo, draft: Path) -> None:
    outcome = _solve(model, companions_of(draft=draft))
    (guest,) = outcome.guests
    assert (guest.home, guest.device, guest.on_device.total) == ("CPU", "", 0)
    assert not draft_placement(guest).devices
    assert outcome.host_free < outcome.machine.host.available - outcome.plan.host_weights - guest.on_host.weights


def test_what_is_on_a_device_that_shares_the_host_s_memory_is_no_longer_the_host_s(
    model: GGUFInfo, draft: Path
) -> None:
    outcome = _solve(model, companions_of(draft=draft), replace(_card(24 << 10), shares_host_memory=True))
    (guest,), (stretch,) = outcome.guests, outcome.plan.stretches
    assert guest.home == "CARD0"
    assert outcome.host_room == 64 * GIB - stretch.total - guest.on_device.total
    assert outcome.host_free < outcome.host_room


def test_a_cache_that_the_header_does_not_show_is_counted_as_llama_cpp_tells_it(
    model: GGUFInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = _solve(model, (), _card(12 << 10))
    (stretch,) = counted.plan.stretches
    asked = solving.dry_run

    def with_an_indexer(question: DryRun, digest: str) -> DryRunResult | None:
        told = asked(question, digest)
        return told and structs.replace(told, kv=told.kv * 3 // 2)

    monkeypatch.setattr(solving, "dry_run", with_an_indexer)
    (larger,) = _solve(model, (), _card(12 << 10)).plan.stretches
    assert larger.kv == pytest.approx(1.5 * stretch.kv, rel=0.01)
    assert larger.weights == stretch.weights


@pytest.mark.parametrize("shape", [SMALL, GEMMA_2_27B], ids=lambda shape: shape.arch)
def test_a_draft_s_kv_bytes_are_what_llama_cpp_would_allocate(shape: Shape, tmp_path: Path) -> None:
    draft = Draft(read_gguf_info(write_hollow(shape, tmp_path / "draft.gguf")))
    kv = draft.shape(Wish(6000, 3, "q8_0"))
    question = DryRun(
        path=str(draft.info.path), devices=("RPC0",), n_gpu_layers=99, cells=6000 * 3, sequences=3, unified=False,
        kv_type="q8_0", n_batch=BATCH, n_ubatch=BATCH, stand_ins=1,
    )  # fmt: skip
    told = ask(question)
    assert isinstance(told, DryRunResult)
    assert draft.model.kv_bytes(kv) == pytest.approx(told.kv, abs=0.02 * MIB)


def test_a_draft_computes_as_many_tokens_at_a_time_as_is_planned() -> None:
    default = LoadSpec(path="", name="", digest="").draft_placement
    assert (default.n_batch, default.n_ubatch) == (BATCH, BATCH)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "draft.gguf").write_bytes(b"none")
    with pytest.raises(BrimError, match=r"draft\.gguf"):
        companions_of(draft=tmp_path / "draft.gguf")


def _projector(path: Path, kind: str, **numbers: int) -> Projector:
    values = {"embedding_length": 1152, "feed_forward_length": 4304, "block_count": 1, "patch_size": 14} | numbers
    header = {"general.architecture": Field.string("clip"), "clip.projector_type": Field.string(kind)}
    header |= {f"clip.vision.{key}": Field.u32(value) for key, value in values.items()}
    placed = lay_out([("v.blk.0.ffn_up.weight", (4304, 1152), TensorType.F16), ("mm.bias", (100,), TensorType.F32)])
    data = encode_header(header, placed)
    path.write_bytes(data + bytes(placed[-1].offset + placed[-1].nbytes))
    return Projector(read_gguf_info(path))


def test_a_projector_is_allowed_what_llama_cpp_s_graph_takes_and_little_more(tmp_path: Path) -> None:
    fixed = _projector(tmp_path / "gemma3.gguf", "gemma3", image_size=896)
    assert fixed.patches == 4096
    assert 105.78 * MIB < fixed.compute < 1.2 * 105.78 * MIB  # as clip.cpp reserved it on the CPU
    numbers = {"embedding_length": 1280, "feed_forward_length": 5120, "image_max_pixels": 1288 * 1288}
    dynamic = _projector(tmp_path / "qwen.gguf", "qwen2vl_merger", **numbers)
    assert dynamic.patches == 8464
    assert 247.97 * MIB < dynamic.compute < 1.2 * 247.97 * MIB
    windowed = _projector(tmp_path / "windowed.gguf", "qwen2.5vl_merger", n_wa_pattern=8)
    assert windowed.patches == 4 * 4096
    assert windowed.compute > 6 * windowed.patches**2


def test_a_picture_that_is_seen_whole_fits_into_one_batch(model: GGUFInfo, tmp_path: Path) -> None:
    assert _projector(tmp_path / "llava.gguf", "mlp", image_size=336).least_batch == 0
    assert _projector(tmp_path / "gemma3.gguf", "gemma3", image_size=896).least_batch == 256
    _projector(tmp_path / "gemma4.gguf", "gemma4v", patch_size=16)
    outcome = _solve(model, companions_of(projector=tmp_path / "gemma4.gguf"), _card(4000))
    assert outcome.placement().n_ubatch == 1280
    assert outcome.placement().n_batch >= 1280


def test_a_projector_goes_to_the_first_gpu_and_the_model_into_what_it_leaves(model: GGUFInfo, tmp_path: Path) -> None:
    _projector(tmp_path / "mmproj.gguf", "gemma3", image_size=896)
    companions = companions_of(projector=tmp_path / "mmproj.gguf")
    outcome = _solve(model, companions, _card(4000), _card(4000, 1))
    (guest,) = outcome.guests
    assert (guest.role, guest.home) == ("projector", "CARD0")
    assert guest.on_device.weights == 4304 * 1152 * 2 + 512
    stretch = next(stretch for stretch in outcome.plan.stretches if stretch.device == "CARD0")
    assert stretch.total + guest.on_device.total <= outcome.budgets["CARD0"]
    remote, igpu = replace(_card(9000), backend="RPC"), replace(_card(9000, 1), shares_host_memory=True)
    machine = Machine(HostMemory(GIB, GIB), (igpu, remote))
    assert companions[0].homes(machine) == ("CARD0", "CPU")


def test_a_draft_and_a_projector_share_what_there_is(model: GGUFInfo, draft: Path, tmp_path: Path) -> None:
    _projector(tmp_path / "mmproj.gguf", "gemma3", image_size=896)
    companions = companions_of(draft=draft, projector=tmp_path / "mmproj.gguf")
    outcome = _solve(model, companions, _card(12 << 10))
    assert {guest.role: guest.home for guest in outcome.guests} == {"draft": "CARD0", "projector": "CARD0"}
    tiny = _solve(read_gguf_info(write_hollow(RANDOM_160M, tmp_path / "m.gguf")), companions, _card(450))
    assert {guest.role: guest.home for guest in tiny.guests}["draft"] == "CPU"
