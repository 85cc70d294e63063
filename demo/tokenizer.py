"""The demo model's tokenizer: byte-level BPE with Qwen2's pre-tokenizer, which llama.cpp knows as `qwen2`."""

# pyright: reportUnknownMemberType=false
import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from demo.template import END_OF_TEXT, TEMPLATE

VOCABULARY = 2048
CONTEXT = 2048
CONTROL = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
# Added tokens, but not special ones: they belong to the visible text, as in Qwen2.5 and Qwen3.
MARKERS = (
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>", "<think>", "</think>",
)  # fmt: skip
# One digit a token; the regular expression is the one by which llama.cpp's converter tells `qwen2`.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer of `VOCABULARY` tokens trained on the texts; the control tokens and markers come last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    learned = VOCABULARY - len(CONTROL) - len(MARKERS)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=learned, initial_alphabet=alphabet, show_progress=False)
    )
    # Where the text holds too few merges, ids would be missing below the added tokens.
    if tokenizer.get_vocab_size() != learned:
        raise ValueError(f"the text gave only {tokenizer.get_vocab_size()} of {learned} tokens; train on more of it")
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKERS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` as Hugging Face lays them out."""
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(text)): {
            "content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": text in CONTROL,
        }
        for text in (*CONTROL, *MARKERS)
    }  # fmt: skip
    names = {"eos_token": "<|im_end|>", "pad_token": END_OF_TEXT}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(CONTROL[1:]),
        "bos_token": None,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
    }
    special = {"additional_special_tokens": list(CONTROL[1:]), **names}
    for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
