from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter import ConversionError, convert, read_gguf_info
from converter.gguf_format import Field, TensorType, ValueType, encode_header, lay_out

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.reference.random_checkpoint import Shape, make_checkpoint

    folder = tmp_path_factory.mktemp("gguf")
    out = folder / "model.gguf"
    convert(make_checkpoint(folder / "checkpoint", Shape()), out, "Q8_0")
    return out


def test_reads_what_the_gguf_package_reads(model: Path) -> None:
    info, reader = read_gguf_info(model), gguf.GGUFReader(model)
    assert info.architecture == "llama"
    assert {k: f.value for k, f in info.fields.items()} == {
        k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")
    }
    assert [(t.name, t.type.name, t.shape[::-1], info.data_start + t.offset) for t in info.tensors] == [
        (t.name, t.tensor_type.name, tuple(t.shape), t.data_offset) for t in reader.tensors
    ]
    assert info.parameters == sum(t.n_elements for t in reader.tensors)


def test_header_survives_a_round_trip(model: Path, tmp_path: Path) -> None:
    info = read_gguf_info(model)
    assert encode_header(info.fields, info.tensors) == model.read_bytes()[: info.data_start]


scalars = st.one_of(
    st.integers(0, 2**32 - 1).map(Field.u32),
    st.booleans().map(Field.boolean),
    st.text().map(Field.string),
    st.floats(width=32, allow_nan=False).map(Field.f32),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: Field(ValueType.INT64, value)),
)
arrays = st.one_of(
    st.lists(st.text(), max_size=5).map(lambda values: Field.array(ValueType.STRING, values)),
    st.lists(st.integers(-128, 127), max_size=5).map(lambda values: Field.array(ValueType.INT8, values)),
)


@given(fields=st.dictionaries(st.text(min_size=1).filter(lambda key: key != "general.alignment"), scalars | arrays))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_any_metadata_survives_a_round_trip(tmp_path: Path, fields: dict[str, Field]) -> None:
    tensors = lay_out([("a.weight", (3, 32), TensorType.Q4_0), ("b.bias", (5,), TensorType.F32)])
    path = tmp_path / "any.gguf"
    header = encode_header(fields, tensors)
    path.write_bytes(header + b"\0" * (tensors[-1].offset + tensors[-1].nbytes))
    info = read_gguf_info(path)
    assert info.fields == fields
    assert list(info.tensors) == tensors
    assert info.data_start == len(header)


@pytest.mark.parametrize("keep", [0, 3, 10, 30, 500, 5000, -1])
def test_truncated(model: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(model.read_bytes()[:keep])
    with pytest.raises(ConversionError, match=r"is empty|is truncated|not a GGUF file") as error:
        read_gguf_info(path)
    assert str(path) in str(error.value)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_damage_never_crashes(model: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes of the header change, either it still reads or one sentence says what is wrong."""
    whole = bytearray(model.read_bytes())
    end = read_gguf_info(model).data_start
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.one_of(st.integers(0, 200), st.integers(0, end - 1), st.integers(end - 3000, end - 1)))
        whole[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(whole)
    try:
        read_gguf_info(path)
    except ConversionError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize("item_type", [0, 8, 10], ids=["bytes", "texts", "numbers"])
def test_a_list_longer_than_any_file_can_be(tmp_path: Path, item_type: int) -> None:
    path = tmp_path / "model.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1s", 1, b"a")
    path.write_bytes(head + struct.pack("<IIQ", 9, item_type, 1 << 62) + bytes(100))
    with pytest.raises(ConversionError, match="goes beyond the file's end"):
        read_gguf_info(path)


def test_not_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 this is a zip archive")
    with pytest.raises(ConversionError, match="is not a GGUF file"):
        read_gguf_info(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"no\.gguf cannot be read: No such file or directory"):
        read_gguf_info(tmp_path / "no.gguf")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="cannot be read: Is a directory"):
        read_gguf_info(tmp_path)
