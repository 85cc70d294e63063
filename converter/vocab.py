"""A checkpoint's tokenizer as GGUF metadata: SentencePiece, or byte-level BPE."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from converter.checkpoint import read_json_object
from converter.errors import ConversionError
from converter.gguf_format import Field, Fields, ValueType
from converter.pretokenizer import recognise_pretokenizer
from converter.special_tokens import SpecialTokens, read_special_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SENTENCEPIECE = "tokenizer.model"
TOKENIZER = "tokenizer.json"
ADDED_SCORE = -1000.0
PAD_SCORE = -10000.0
WORD_START = "▁"


class TokenType(IntEnum):
    """What a token is, as SentencePiece numbers it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass
class Vocabulary:
    """A tokenizer in GGUF's terms.

    Attributes:
        model: `llama` (SentencePiece BPE) or `gpt2` (byte-level BPE).
        pretokenizer: llama.cpp's name for how text is split before merging.
        tokens: their texts, by id.
        types: what each token is, by id.
        special: special tokens and chat templates.
        scores: which merge goes first, by the token it makes (SentencePiece).
        merges: pairs to merge, the first first (byte-level BPE).
        add_space_prefix: whether text is tokenized as if a space went before, where the checkpoint says so.
    """

    model: str
    pretokenizer: str
    tokens: list[str]
    types: list[TokenType]
    special: SpecialTokens
    scores: list[float] | None = None
    merges: list[str] | None = None
    add_space_prefix: bool | None = None

    def fields(self) -> Fields:
        """The metadata, in llama.cpp's order."""
        fields: Fields = {}
        if self.add_space_prefix is not None:
            fields["tokenizer.ggml.add_space_prefix"] = Field.boolean(self.add_space_prefix)
        fields["tokenizer.ggml.model"] = Field.string(self.model)
        fields["tokenizer.ggml.pre"] = Field.string(self.pretokenizer)
        fields["tokenizer.ggml.tokens"] = Field.array(ValueType.STRING, self.tokens)
        if self.scores is not None:
            fields["tokenizer.ggml.scores"] = Field.array(ValueType.FLOAT32, self.scores)
        fields["tokenizer.ggml.token_type"] = Field.array(ValueType.INT32, self.types)
        if self.merges is not None:
            fields["tokenizer.ggml.merges"] = Field.array(ValueType.STRING, self.merges)
        return fields | self.special.fields()


def read_vocabulary(folder: Path, config: Mapping[str, Any], size: int) -> Vocabulary:
    """Reads the tokenizer of a checkpoint: tokenizer.model where there is one, else tokenizer.json.

    Args:
        folder: the checkpoint.
        config: its config.json.
        size: number of rows of the embedding; ids the tokenizer does not use are padded.

    Raises:
        ConversionError: there is no tokenizer, it is damaged, or llama.cpp would not tokenize as it does.
    """
    tokenizer = read_json_object(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None
    special = read_special_tokens(folder, config, tokenizer, size)
    if (folder / SENTENCEPIECE).is_file():
        vocabulary = _read_sentencepiece(folder, size, special)
    elif tokenizer is None:
        raise ConversionError(f"{folder} has no tokenizer: neither {SENTENCEPIECE} nor {TOKENIZER} is there.")
    else:
        try:
            vocabulary = _read_tokenizer_json(folder / TOKENIZER, tokenizer, size, special)
        except (AttributeError, KeyError, TypeError) as error:
            raise ConversionError(
                f"{folder / TOKENIZER} is not a tokenizer as the tokenizers library writes it."
            ) from error
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and isinstance(prefix := read_json_object(settings).get("add_prefix_space"), bool):
        vocabulary.add_space_prefix = prefix
    return vocabulary


def _read_sentencepiece(folder: Path, size: int, special: SpecialTokens) -> Vocabulary:
    from sentencepiece import SentencePieceProcessor

    path = folder / SENTENCEPIECE
    model: Any = SentencePieceProcessor()
    try:
        model.LoadFromFile(str(path))
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"{path} is not a SentencePiece model.") from error
    pieces: int = min(model.vocab_size(), size)
    vocabulary = _padded("llama", "default", size, special)
    vocabulary.scores = [PAD_SCORE] * size
    for token_id in range(pieces):
        vocabulary.tokens[token_id] = model.IdToPiece(token_id)
        vocabulary.scores[token_id] = model.GetScore(token_id)
        vocabulary.types[token_id] = _piece_type(model, token_id)
    for content, token_id, is_special in _added_tokens(folder):
        if token_id < size:
            _set_added(vocabulary, token_id, content, is_special)
            vocabulary.scores[token_id] = ADDED_SCORE
    return vocabulary


def _piece_type(model: Any, token_id: int) -> TokenType:
    if model.IsUnknown(token_id):
        return TokenType.UNKNOWN
    if model.IsControl(token_id):
        return TokenType.CONTROL
    if model.IsUnused(token_id):
        return TokenType.UNUSED
    return TokenType.BYTE if model.IsByte(token_id) else TokenType.NORMAL


def _added_tokens(folder: Path) -> list[tuple[str, int, bool]]:
    """Tokens that a SentencePiece checkpoint adds to its model: text, id, whether special; the last one counts."""
    added: list[tuple[str, int, bool]] = []
    if (path := folder / "added_tokens.json").is_file():
        added += [(content, token_id, False) for content, token_id in read_json_object(path).items()]
    if (path := folder / "tokenizer_config.json").is_file():
        entries: dict[str, Any] = read_json_object(path).get("added_tokens_decoder", {})
        added += [(entry["content"], int(key), bool(entry.get("special"))) for key, entry in entries.items()]
    return added


def _read_tokenizer_json(path: Path, tokenizer: Mapping[str, Any], size: int, special: SpecialTokens) -> Vocabulary:
    model = tokenizer["model"]
    if model.get("type", "BPE") != "BPE":
        raise ConversionError(f"{path}: its model is {model['type']}; BPE can be converted.")
    entries: dict[str, int] = model["vocab"]
    greatest = max([*entries.values(), *(token["id"] for token in tokenizer["added_tokens"])])
    if greatest >= size:
        raise ConversionError(f"{path} has token id {greatest}, and config.json says vocab_size is {size}.")

    pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
    if model.get("byte_fallback"):
        vocabulary = _padded("llama", "default", size, special)
        vocabulary.scores = _scores(entries, pairs, size)
        vocabulary.add_space_prefix = _has_space_prefix(tokenizer)
    else:
        vocabulary = _padded("gpt2", recognise_pretokenizer(tokenizer, str(path)), size, special)
        # GGUF joins a pair with a space, so a space within a token goes by its byte-level letter
        vocabulary.merges = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in pairs]
    for content, token_id in entries.items():
        vocabulary.tokens[token_id] = content
        vocabulary.types[token_id] = _entry_type(content, model)
    for token in tokenizer["added_tokens"]:
        if vocabulary.types[token["id"]] is not TokenType.UNKNOWN:
            _set_added(vocabulary, token["id"], token["content"], token["special"])
    return vocabulary


def _entry_type(content: str, model: Mapping[str, Any]) -> TokenType:
    if model.get("byte_fallback"):
        if content == model.get("unk_token"):
            return TokenType.UNKNOWN
        if re.fullmatch("<0x[0-9A-F]{2}>", content):
            return TokenType.BYTE
    return TokenType.NORMAL


def _scores(entries: Mapping[str, int], pairs: list[list[str]], size: int) -> list[float]:
    """SentencePiece scores that put merges in the order of BPE's ranks: a token scores by its first merge."""
    scores = [PAD_SCORE] * size
    for token_id in entries.values():
        scores[token_id] = 0.0
    for rank, pair in reversed(list(enumerate(pairs))):
        scores[entries["".join(pair)]] = -float(rank + 1)
    return scores


def _has_space_prefix(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a SentencePiece-like tokenizer.json puts a space before the text."""
    normalizer: dict[str, Any] = tokenizer.get("normalizer") or {"type": ""}
    steps: list[dict[str, Any]] = normalizer.get("normalizers", [normalizer])
    if any(step["type"] == "Prepend" for step in steps):
        return True
    pre_tokenizer: dict[str, Any] = tokenizer.get("pre_tokenizer") or {}
    return pre_tokenizer.get("type") == "Metaspace" and pre_tokenizer.get("prepend_scheme", "always") != "never"


def _padded(model: str, pretokenizer: str, size: int, special: SpecialTokens) -> Vocabulary:
    """A vocabulary whose ids are all unused yet."""
    return Vocabulary(model, pretokenizer, [f"[PAD{i}]" for i in range(size)], [TokenType.UNUSED] * size, special)


def _set_added(vocabulary: Vocabulary, token_id: int, content: str, is_special: bool) -> None:
    if is_special or _looks_special(content):
        vocabulary.tokens[token_id], vocabulary.types[token_id] = content, TokenType.CONTROL
    else:
        vocabulary.tokens[token_id] = content.replace(WORD_START, " ")
        vocabulary.types[token_id] = TokenType.USER_DEFINED


def _looks_special(content: str) -> bool:
    """Published tokenizers mark some control tokens as ordinary added ones; their look gives them away."""
    brackets = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    return content in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        content.startswith(opening) and content.endswith(closing) for opening, closing in brackets
    )
