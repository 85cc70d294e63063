"""llama.cpp tokenizes, by the vocabulary we wrote, exactly as the checkpoint's own tokenizer does."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp
import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, decoders, models, normalizers

from converter import ConversionError, convert
from converter.pretokenizer import CONTRACTIONS, CONTRACTIONS_SPELLED, NAMES, recognise_pretokenizer
from converter.vocab import TokenType, read_vocabulary
from tests.reference.random_checkpoint import SPECIAL_TOKENS, PreTokenizer, Shape, make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEMO = Path(__file__).parents[2] / "demo/checkpoint"
TEXTS = (
    "Once upon a time, there was a little fox.",
    "",
    " ",
    "   ",
    "a",
    " leading and trailing ",
    "two  spaces,   three,    four",
    "tabs\tand\t\ttabs",
    "one\ntwo\n\nthree\n\n\n",
    "\n\n  indented\n    more\r\n\r\nwindows",
    "1 12 123 1234 12345 1234567890 3.14 1,000,000 ١٢٣",
    "I'm she'd we'll they've it's you're DON'T SHE'LL 's'",
    "naïve café déjà vu garçon Ünïcödé ß ẞ",
    "Привет, мир! Ελληνικά עברית العربية हिन्दी ไทย",
    "你好，世界。こんにちは 안녕하세요 「引用」",
    "🦊🎉👩‍👩‍👧‍👦🏳️‍🌈 ✅ 😶‍🌫️",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~",
    "------=======......!!!!!!??????",
    "def f(x):\n\treturn x**2  # comment\n\n\n",
    "https://example.com/a/b?c=d&e=f#g",
    "\u00a0no\u2003break\u3000spaces\u200b",
    "control \x00\x01\x7f characters",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "MiXeD cAsE WORDS andCamelCase snake_case kebab-case",
    "<|im_start|>user\nHello<|im_end|>\n<|endoftext|>",
    "text<|im_end|>text <|im_end|> <|im_start|",
)


class LlamaVocabulary:
    """llama.cpp's tokenizer, loaded from a GGUF file without its weights."""

    def __init__(self, path: Path) -> None:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert model
        vocab = llama_cpp.llama_model_get_vocab(model)
        assert vocab
        self.model, self.vocab = model, vocab

    def encode(self, text: str, *, special: bool, add_special: bool = False) -> list[int]:
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), add_special, special)
        assert count >= 0
        return list(ids[:count])

    def close(self) -> None:
        llama_cpp.llama_model_free(self.model)


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    kind: PreTokenizer = request.param
    folder = tmp_path_factory.mktemp(kind)
    checkpoint = make_checkpoint(folder / "checkpoint", Shape(vocabulary=700), pre_tokenizer=kind)
    convert(checkpoint, folder / "model.gguf", "F16")
    vocabulary = LlamaVocabulary(folder / "model.gguf")
    yield vocabulary, Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    vocabulary.close()


@pytest.mark.parametrize("loaded", ["llama-3", "qwen2", "gpt-2", "digits"], indirect=True)
@pytest.mark.parametrize("text", TEXTS)
def test_byte_level(loaded: tuple[LlamaVocabulary, Tokenizer], text: str) -> None:
    vocabulary, tokenizer = loaded
    assert vocabulary.encode(text, special=True) == tokenizer.encode(text, add_special_tokens=False).ids
    assert vocabulary.encode(text, special=True, add_special=True) == tokenizer.encode(text).ids


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LlamaVocabulary, Tokenizer]]:
    if not (DEMO / "tokenizer.json").is_file():
        pytest.skip("the demo checkpoint is not there")
    out = tmp_path_factory.mktemp("demo") / "demo.gguf"
    convert(DEMO, out, "Q8_0")
    vocabulary = LlamaVocabulary(out)
    yield vocabulary, Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    vocabulary.close()


@pytest.mark.parametrize("text", TEXTS)
def test_demo(demo: tuple[LlamaVocabulary, Tokenizer], text: str) -> None:
    vocabulary, tokenizer = demo
    assert vocabulary.encode(text, special=True, add_special=True) == tokenizer.encode(text).ids


@pytest.fixture(scope="module")
def stories_vocabulary(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaVocabulary]:
    out = tmp_path_factory.mktemp("stories") / "stories.gguf"
    convert(stories, out, "F16")
    vocabulary = LlamaVocabulary(out)
    yield vocabulary
    vocabulary.close()


@pytest.mark.parametrize("text", [text for text in TEXTS if "\x00" not in text])
def test_sentencepiece(stories: Path, stories_vocabulary: LlamaVocabulary, text: str) -> None:
    """SentencePiece's dummy prefix and byte fallback; what it normalises away, llama.cpp does not see."""
    tokenizer: Any = SentencePieceProcessor()
    tokenizer.LoadFromFile(str(stories / "tokenizer.model"))
    if tokenizer.Normalize(text).lstrip("▁") != text.replace(" ", "▁").lstrip("▁"):
        pytest.skip("the model's normaliser changes this text")
    assert stories_vocabulary.encode(text, special=False) == tokenizer.EncodeAsIds(text)
    assert stories_vocabulary.encode(text, special=False, add_special=True) == [1, *tokenizer.EncodeAsIds(text)]


def test_sentencepiece_like_tokenizer_json(tmp_path: Path) -> None:
    """A checkpoint of the Llama 2 kind that ships tokenizer.json alone."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz."]
    pairs = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("a", "t"), ("c", "at"), ("▁", "cat"), ("h", "at")]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *("".join(pair) for pair in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<s>", "</s>"])  # pyright: ignore[reportUnknownMemberType]
    checkpoint = make_checkpoint(tmp_path / "checkpoint", Shape())
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    convert(checkpoint, tmp_path / "model.gguf", "F16")
    ours = LlamaVocabulary(tmp_path / "model.gguf")
    for text in ("the cat", "that hat at the cat.", "thethe  cats", "äöü the 🦊", "hath"):
        assert ours.encode(text, special=True) == tokenizer.encode(text).ids, text
    ours.close()


def test_token_types(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", Shape())
    path = checkpoint / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append({"id": 385, "content": "<tool>", "special": False})
    path.write_text(json.dumps(tokenizer))
    config = json.loads((checkpoint / "config.json").read_text())
    vocabulary = read_vocabulary(checkpoint, config, size=390)
    expected = {"eos": SPECIAL_TOKENS[2], "pad": SPECIAL_TOKENS[0]}
    by_text = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert {by_text[token] for token in SPECIAL_TOKENS} == {TokenType.CONTROL}
    assert by_text["<tool>"] is TokenType.USER_DEFINED
    assert by_text["a"] is TokenType.NORMAL
    assert by_text["[PAD389]"] is TokenType.UNUSED
    assert vocabulary.special.ids == {kind: vocabulary.tokens.index(text) for kind, text in expected.items()}


def split(regex: str, **other: object) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} | other


def byte_level(*, use_regex: bool, add_prefix_space: bool = False) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


@pytest.mark.parametrize(("steps", "ignore_merges"), NAMES)
def test_recognises_every_pretokenizer(steps: tuple[str, ...], ignore_merges: bool) -> None:
    built: list[dict[str, Any]] = []
    for step in steps:
        match step:
            case "digits":
                built.append({"type": "Digits", "individual_digits": True})
            case "words":
                built.append(byte_level(use_regex=True))
            case _:
                spelled = step.replace(CONTRACTIONS, CONTRACTIONS_SPELLED).replace(r"\r", "\r").replace(r"\n", "\n")
                built.append(split(spelled))
    sequence = {"type": "Sequence", "pretokenizers": [*built, byte_level(use_regex=False)]}
    tokenizer = {"pre_tokenizer": sequence, "model": {"ignore_merges": ignore_merges}}
    assert recognise_pretokenizer(tokenizer, "tokenizer.json") == NAMES[steps, ignore_merges]


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        split(r"\w+"),
        {"type": "Whitespace"},
        byte_level(use_regex=True, add_prefix_space=True),
        {"type": "Digits", "individual_digits": False},
        None,
    ],
)
def test_refuses_other_pretokenizers(pre_tokenizer: dict[str, Any] | None) -> None:
    with pytest.raises(ConversionError, match=r"pre[_-]tokenizer"):
        recognise_pretokenizer({"pre_tokenizer": pre_tokenizer, "model": {}}, "tokenizer.json")
