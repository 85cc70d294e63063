"""The bundled checkpoint and its draft model: their layout, sizes and tokenizer."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from demo import CHECKPOINT, DRAFT
from demo.conversations import training_examples
from demo.template import training_text
from demo.tokenizer import CONTROL, MARKERS, VOCABULARY

BOTH = pytest.mark.parametrize("folder", [CHECKPOINT, DRAFT], ids=["checkpoint", "draft"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def read(folder: Path, name: str) -> dict[str, object]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def header(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the safetensors file says about its tensors, without reading them."""
    with (folder / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(length))
    del tensors["__metadata__"]
    return tensors


def test_both_are_small_enough_to_ship() -> None:
    assert size(CHECKPOINT) + size(DRAFT) <= 12_000_000
    assert size(DRAFT) <= 3_000_000


@BOTH
def test_weights_are_bfloat16_in_rows_of_whole_super_blocks(folder: Path) -> None:
    config = read(folder, "config.json")
    tensors = header(folder)
    for tensor in tensors.values():
        assert tensor["dtype"] == "BF16"
        assert tensor["shape"][-1] % 256 == 0
    assert tensors["model.embed_tokens.weight"]["shape"] == [VOCABULARY, config["hidden_size"]]
    assert len({name.split(".")[2] for name in tensors if ".layers." in name}) == config["num_hidden_layers"]


def test_the_main_model_has_the_size_it_is_meant_to_have() -> None:
    config = read(CHECKPOINT, "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    layers, context = config["num_hidden_layers"], config["max_position_embeddings"]
    assert isinstance(layers, int)
    assert isinstance(context, int)
    assert 6 <= layers <= 12
    assert context >= 2048


def test_the_draft_model_shares_the_tokenizer() -> None:
    assert (DRAFT / "tokenizer.json").read_bytes() == (CHECKPOINT / "tokenizer.json").read_bytes()


@BOTH
def test_an_answer_ends_at_either_end_token(folder: Path) -> None:
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    assert read(folder, "generation_config.json")["eos_token_id"] == [ids["<|im_end|>"], ids["<|endoftext|>"]]


def test_text_comes_back_from_the_tokenizer(tokenizer: Tokenizer) -> None:
    texts = [training_text(example) for example in islice(training_examples(11), 200)]
    texts += ["Grüße, 世界! 🙂\n\n\tindented", "", "  two  spaces  ", "naïve café 12345"]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_markers_and_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == VOCABULARY
    for text in (*CONTROL, *MARKERS, *"0123456789"):
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == 1
    assert len(tokenizer.encode("2048", add_special_tokens=False).ids) == 4


def test_only_control_tokens_are_special(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("".join((*CONTROL, *MARKERS)), add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "".join(MARKERS)
