"""Every way a checkpoint may be broken: status 1, one sentence that names the file and the fault, nothing written."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from converter.cli import app
from tests.reference.random_checkpoint import Shape, make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the JSON header of a safetensors file and leaves the tensors' data."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + raw[8 + length :])


def truncate(path: Path, keep: int) -> None:
    os.truncate(path, keep if keep >= 0 else path.stat().st_size + keep)


def unshard(folder: Path) -> None:
    for path in [folder / INDEX, *folder.glob("*.safetensors")]:
        path.unlink()


Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{,}"), "config.json is not valid JSON"),
    "config no object": (lambda f: (f / "config.json").write_text("[]"), "config.json holds no JSON object"),
    "other architecture": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(architectures=["MambaForCausalLM"])),
        "MambaForCausalLM is not supported yet; supported are LlamaForCausalLM, MistralForCausalLM",
    ),
    "no architecture": (
        lambda f: edit_json(f / "config.json", lambda c: c.pop("architectures")),
        "config.json names no model class",
    ),
    "no hidden size": (lambda f: edit_json(f / "config.json", lambda c: c.pop("hidden_size")), "lacks hidden_size"),
    "heads not a number": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(num_attention_heads="4")),
        "has '4' for num_attention_heads",
    ),
    "unknown rope scaling": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(rope_scaling={"rope_type": "longrope"})),
        "rope scaling of type 'longrope' is not supported",
    ),
    "rope scaling without factor": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(rope_scaling={"rope_type": "linear"})),
        "rope scaling of type linear needs a number factor",
    ),
    "quantized already": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(quantization_config={"quant_method": "gptq"})),
        "is already quantized by gptq",
    ),
    "missing shard": (lambda f: (f / SECOND).unlink(), f"lacks the shard {SECOND} that {INDEX} names"),
    "missing tensor": (
        lambda f: (edit_header(f / FIRST, lambda h: h.pop(Q_PROJ)), (f / INDEX).unlink()),
        f"lacks tensor {Q_PROJ}",
    ),
    "tensor not in its shard": (
        lambda f: edit_header(f / FIRST, lambda h: h.pop(Q_PROJ)),
        f"{FIRST} lacks tensor {Q_PROJ}, which {INDEX} says it holds",
    ),
    "superfluous tensor": (
        lambda f: edit_header(f / FIRST, lambda h: h.update({"model.extra.weight": h[Q_PROJ]})),
        "holds tensor model.extra.weight, unknown to LlamaForCausalLM",
    ),
    "unexpected shape": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(head_dim=32)),
        f"tensor {Q_PROJ} has shape [64, 64], and by config.json it should have [128, 64]",
    ),
    "truncated data": (lambda f: truncate(f / SECOND, -100), f"{SECOND} is truncated: its tensors end at byte"),
    "truncated header": (lambda f: truncate(f / FIRST, 100), f"{FIRST} is truncated: its header takes"),
    "empty shard": (lambda f: truncate(f / FIRST, 0), f"{FIRST} is truncated: it has 0 bytes"),
    "corrupt header": (
        lambda f: (f / FIRST).write_bytes(struct.pack("<Q", 4) + b"{xx}" + bytes(100)),
        f"{FIRST} is corrupt: its header is not valid JSON",
    ),
    "not safetensors": (lambda f: (f / FIRST).write_bytes(b"PK\x03\x04" * 50), f"{FIRST} is not a safetensors file"),
    "header without tensors": (
        lambda f: edit_header(f / FIRST, lambda h: h.update({Q_PROJ: {"dtype": "BF16"}})),
        f"{FIRST} is corrupt: its header describes no tensors",
    ),
    "overlong tensor": (
        lambda f: edit_header(f / FIRST, lambda h: h[Q_PROJ].update(shape=[64, 65])),
        f"{FIRST} is corrupt: tensor {Q_PROJ} of shape [64, 65]",
    ),
    "unknown dtype": (
        lambda f: edit_header(f / FIRST, lambda h: h[Q_PROJ].update(dtype="F8_E4M3")),
        f"tensor {Q_PROJ} is of type F8_E4M3; F32, F16, BF16 can be converted",
    ),
    "no weights": (unshard, "has no safetensors files"),
    "PyTorch weights": (
        lambda f: (unshard(f), (f / "pytorch_model.bin").touch()),
        "its weights are PyTorch .bin files; save it as safetensors",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        "has no tokenizer: neither tokenizer.model nor tokenizer.json is there",
    ),
    "tokenizer not JSON": (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json is not valid JSON"),
    "tokenizer empty": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is not a tokenizer"),
    "tokenizer too big": (
        lambda f: edit_json(f / "tokenizer.json", lambda t: t["added_tokens"][0].update(id=9999)),
        "tokenizer.json has token id 9999, and config.json says vocab_size is 384",
    ),
    "tokenizer of another kind": (
        lambda f: edit_json(f / "tokenizer.json", lambda t: t["model"].update(type="WordPiece")),
        "its model is WordPiece; BPE can be converted",
    ),
    "unknown pre-tokenizer": (
        lambda f: edit_json(f / "tokenizer.json", lambda t: t.update(pre_tokenizer={"type": "BertPreTokenizer"})),
        "its pre-tokenizer ('BertPreTokenizer') is none that llama.cpp is known to have",
    ),
    "lower-casing tokenizer": (
        lambda f: edit_json(f / "tokenizer.json", lambda t: t.update(normalizer={"type": "Lowercase"})),
        "llama.cpp has no Lowercase normalizer",
    ),
    "damaged SentencePiece": (
        lambda f: (f / "tokenizer.model").write_bytes(b"nonsense"),
        "tokenizer.model is not a SentencePiece model",
    ),
}


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint(checkpoint: Path, tmp_path: Path, damage: str) -> None:
    break_it, sentence = DAMAGES[damage]
    break_it(checkpoint)
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    status, message = run("convert", checkpoint, "--quant", "F16", "--out", out)
    assert status == 1
    assert sentence in message
    assert message.startswith("Error: ")
    assert message.strip().count("\n") == 0, "one line"
    assert "Traceback" not in message
    assert list(out.parent.iterdir()) == []


def test_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "out.gguf"
    assert run("convert", tmp_path / "file", "--out", out) == (
        1,
        f"Error: {tmp_path / 'file'} is a file; a checkpoint is a folder with config.json and safetensors files.\n",
    )
    assert "does not exist" in run("convert", tmp_path / "nothing", "--out", out)[1]
    assert "`brim quantize` changes its type" in run("convert", tmp_path / "model.gguf", "--out", out)[1]
    assert not out.exists()


def test_unknown_quantization_lists_the_known(checkpoint: Path, tmp_path: Path) -> None:
    status, message = run("convert", checkpoint, "--quant", "Q4_X", "--out", tmp_path / "out.gguf")
    assert status == 1
    assert "'Q4_X' is no quantization type; choose one of F32, F16, BF16, Q8_0," in message


def test_output_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    status, message = run("convert", checkpoint, "--quant", "F16", "--out", tmp_path / "no/folder/out.gguf")
    assert status == 1
    assert f"there is no folder {tmp_path / 'no/folder'} that may be written to" in message
    assert "is a folder; name the file to write" in run("convert", checkpoint, "--out", tmp_path)[1]


def test_values_beyond_f16(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", Shape(), dtype="F32")
    path = checkpoint / "model.safetensors"
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    raw[8 + length : 12 + length] = struct.pack("<f", 1e6)
    path.write_bytes(raw)
    status, message = run("convert", checkpoint, "--quant", "F16", "--out", tmp_path / "out.gguf")
    assert status == 1
    assert "Tensor token_embd.weight cannot be written as F16: it holds values beyond 65504" in message
    assert run("convert", checkpoint, "--quant", "BF16", "--out", tmp_path / "out.gguf")[0] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", Shape(), dtype="F32")
    path = checkpoint / "model.safetensors"
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    raw[8 + length : 12 + length] = struct.pack("<f", value)
    path.write_bytes(raw)
    status, message = run("convert", checkpoint, "--quant", "Q8_0", "--out", tmp_path / "out.gguf")
    assert status == 1
    assert "Tensor token_embd.weight cannot be written as Q8_0: it holds values that are infinite" in message
    assert not (tmp_path / "out.gguf").exists()


def test_file_of_before_stays_until_the_new_one_is_complete(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"the one before")
    (checkpoint / SECOND).unlink()
    assert run("convert", checkpoint, "--quant", "F16", "--out", out)[0] == 1
    assert out.read_bytes() == b"the one before"


def test_disk_too_small(checkpoint: Path, tmp_path: Path) -> None:
    """The kernel refuses the write half-way, as on a full disk."""
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    command = [sys.executable, "-m", "converter.cli", "convert", str(checkpoint), "--quant", "F32", "--out", str(out)]
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 1
    assert f"{out} cannot be written: File too large" in done.stderr
    assert list(out.parent.iterdir()) == []


def make_long_conversion(folder: Path) -> Path:
    """A checkpoint of 786 million weights whose file is a hole: it takes seconds to convert, and no disk space."""
    shape = Shape(layers=1, feed_forward=4_096_000, tied=True)
    make_checkpoint(folder, Shape(layers=1, tied=True))
    (folder / "config.json").write_text(json.dumps(shape.config_json("BF16")))
    header: dict[str, Any] = {}
    end = 0
    for name, dimensions in shape.tensors():
        begin, end = end, end + 2 * prod(dimensions)
        header[name] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded)
    os.truncate(folder / "model.safetensors", 8 + len(encoded) + end)
    return folder


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, signal_number: int) -> None:
    checkpoint = make_long_conversion(tmp_path / "checkpoint")
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    command = [sys.executable, "-m", "converter.cli", "convert", str(checkpoint), "-q", "Q4_0", "-o", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.parent.glob(".model.gguf.*")):
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, message = process.communicate()
    assert process.returncode == 130
    assert "Interrupted; nothing was written." in message
    assert list(out.parent.iterdir()) == []
