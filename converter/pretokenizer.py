"""Recognises a byte-level BPE tokenizer's pre-tokenizer and gives it llama.cpp's name.

llama.cpp splits text with regular expressions of its own, chosen by the name in `tokenizer.ggml.pre` (llama-vocab.cpp).
Its converter recognises a tokenizer by a hash of what it makes of one text, and so knows published vocabularies only;
here the steps in tokenizer.json decide, whatever vocabulary was trained behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converter.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CONTRACTIONS_SPELLED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CAPITALISED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+"
SHOUTED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

LLAMA_3 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}{{1,3}}|{SYMBOLS}|{SPACES}"
QWEN_2 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}|{SYMBOLS}|{SPACES}"
QWEN_3_5 = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"
)
TEKKEN = rf"{CAPITALISED}|{SHOUTED}|\p{{N}}|{PATHS}|{SPACES}"
GPT_4O = rf"{CAPITALISED}{CONTRACTIONS}?|{SHOUTED}{CONTRACTIONS}?|\p{{N}}{{1,3}}|{PATHS}|{SPACES}"
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    + SPACES,
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", "digits")

NAMES: dict[tuple[tuple[str, ...], bool], str] = {
    ((LLAMA_3,), True): "llama-bpe",
    ((LLAMA_3,), False): "smaug-bpe",
    ((QWEN_2,), False): "qwen2",
    ((QWEN_3_5,), False): "qwen35",
    ((TEKKEN,), True): "tekken",
    ((GPT_4O,), False): "gpt-4o",
    (DEEPSEEK_V3, False): "deepseek-v3",
    (DEEPSEEK_CODER, False): "deepseek-coder",
    (("words",), False): "gpt-2",
    (("digits", "words"), False): "smollm",
}
"""llama.cpp's name for a sequence of steps, and whether whole words in the vocabulary are taken before any merge.

A step is a regular expression, `digits` (every digit alone) or `words` (GPT-2's expression, built into ByteLevel).
"""


def recognise_pretokenizer(tokenizer: Mapping[str, Any], file: str) -> str:
    """llama.cpp's name for the pre-tokenizer of a tokenizer.json.

    Args:
        tokenizer: the parsed tokenizer.json of a byte-level BPE.
        file: its name, for the error's sake.

    Raises:
        ConversionError: llama.cpp would split text otherwise than this tokenizer does, or it cannot be told.
    """
    _check_normalizer(tokenizer.get("normalizer"), file)
    steps = tuple(step for step in _steps(tokenizer.get("pre_tokenizer"), file) if step)
    name = NAMES.get((steps, bool(tokenizer["model"].get("ignore_merges"))))
    if name is None:
        raise ConversionError(
            f"{file}: its pre-tokenizer ({', '.join(map(repr, steps))}) is none that llama.cpp is known to have, "
            "so the model would see text split otherwise than in its training."
        )
    return name


def _check_normalizer(normalizer: Mapping[str, Any] | None, file: str) -> None:
    """Refuses text normalisation that llama.cpp would leave out; composing accents (NFC) is left to the caller."""
    if normalizer is None:
        return
    parts = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    other = [part["type"] for part in parts if part["type"] != "NFC"]
    if other:
        raise ConversionError(f"{file}: llama.cpp has no {other[0]} normalizer for byte-level BPE.")


def _steps(pre_tokenizer: Mapping[str, Any] | None, file: str) -> Iterator[str]:
    """The steps in normal form; an empty one changes nothing."""
    match pre_tokenizer:
        case {"type": "Sequence"}:
            for part in pre_tokenizer["pretokenizers"]:
                yield from _steps(part, file)
        case {"type": "Split", "pattern": {"Regex": str() as regex}, "behavior": "Isolated" | "Removed"}:
            yield _normal_form(regex)
        case {"type": "Digits", "individual_digits": True}:
            yield "digits"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            yield "words" if pre_tokenizer.get("use_regex", True) else ""
        case None:
            raise ConversionError(f"{file} has no pre_tokenizer, which byte-level BPE needs.")
        case _:
            yield str(pre_tokenizer.get("type"))


def _normal_form(regex: str) -> str:
    """One spelling for expressions that match the same."""
    return regex.replace("\r", r"\r").replace("\n", r"\n").replace(CONTRACTIONS_SPELLED, CONTRACTIONS)
