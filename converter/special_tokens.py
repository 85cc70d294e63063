"""Special tokens and chat templates: what tokenizer.json, tokenizer_config.json and config.json say of them.

The files overlap and disagree in the wild; the order of precedence is that of llama.cpp's converter (gguf-py,
vocab.py), so that both write the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from converter.checkpoint import read_json_object
from converter.errors import ConversionError
from converter.gguf_format import Field, Fields, ValueType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
KEYS = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
"""Where GGUF's name of a kind differs; the misspelling is the format's own."""


@dataclass
class SpecialTokens:
    """Ids of the special tokens by kind, which of them the tokenizer adds by itself, and the chat templates by name."""

    ids: dict[str, int] = field(default_factory=dict[str, int])
    added: dict[str, bool] = field(default_factory=dict[str, bool])
    chat_templates: dict[str, str] = field(default_factory=dict[str, str])

    def fields(self) -> Fields:
        """The metadata, in llama.cpp's order."""
        fields: Fields = {}
        for kind, token_id in self.ids.items():
            fields[f"tokenizer.ggml.{KEYS.get(kind, kind)}_token_id"] = Field.u32(token_id)
        for kind, added in self.added.items():
            if kind in ("bos", "eos", "sep"):
                fields[f"tokenizer.ggml.add_{kind}_token"] = Field.boolean(added)
        named = {name: text for name, text in self.chat_templates.items() if name != "default"}
        for name, text in named.items():
            fields[f"tokenizer.chat_template.{name}"] = Field.string(text)
        if named:
            fields["tokenizer.chat_templates"] = Field.array(ValueType.STRING, sorted(named))
        if "default" in self.chat_templates:
            fields["tokenizer.chat_template"] = Field.string(self.chat_templates["default"])
        return fields


def read_special_tokens(
    folder: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any] | None, tokens: int
) -> SpecialTokens:
    """Gathers the special tokens of a checkpoint.

    Args:
        folder: the checkpoint.
        config: its config.json.
        tokenizer: its tokenizer.json, where it has one.
        tokens: size of the vocabulary; ids beyond it are left out.

    Raises:
        ConversionError: a chat template is not text.
    """
    path = folder / "tokenizer_config.json"
    settings = read_json_object(path) if path.is_file() else {}
    texts = {kind: text for kind in KINDS if (text := _token_text(settings.get(f"{kind}_token")))}
    special = SpecialTokens()
    if tokenizer is not None:
        _follow_post_processor(tokenizer.get("post_processor"), texts, special)
    for kind in KINDS:
        if isinstance(add := settings.get(f"add_{kind}_token"), bool):
            special.added.setdefault(kind, add)

    added_tokens = {token["content"]: token["id"] for token in (tokenizer or {}).get("added_tokens", [])}
    candidates = [(kind, added_tokens.get(text)) for kind, text in texts.items()]
    candidates += [(kind, config.get(f"{kind}_token_id")) for kind in KINDS]
    for kind, token_id in candidates:
        if isinstance(token_id, int) and 0 <= token_id < tokens:
            special.ids.setdefault(kind, token_id)
    special.chat_templates = _chat_templates(folder, settings)
    return special


def _token_text(entry: Any) -> str | None:
    """A token's text, which stands by itself or in an object."""
    content = cast("dict[str, Any]", entry).get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def _follow_post_processor(
    post_processor: Mapping[str, Any] | None, texts: dict[str, str], special: SpecialTokens
) -> None:
    """What the tokenizer puts before and after a text decides whether BOS and EOS are added, and may name them."""
    if post_processor is None:
        return
    for processor in post_processor.get("processors", [post_processor]):
        if processor["type"] == "ByteLevel":
            special.added.setdefault("bos", False)
            special.added.setdefault("eos", False)
        elif processor["type"] == "TemplateProcessing" and len(processor["single"]) > 1:
            first = processor["single"][0].get("SpecialToken", {}).get("id")
            last = processor["single"][-1].get("SpecialToken", {}).get("id")
            if first:
                special.added["bos"] = texts.setdefault("bos", first) == first
            if last:
                if texts.get("eos") not in (None, last):
                    texts["eot"] = texts["eos"]
                texts["eos"] = last
                special.added["eos"] = True
            if between := _between_pair(processor.get("pair", [])):
                special.added["sep"] = not last and not between.isdisjoint({texts.get("sep"), texts.get("eos")})


def _between_pair(pair: Sequence[Mapping[str, Any]]) -> set[str]:
    """The special tokens that a template puts between the two texts of a pair."""
    places = {item["Sequence"]["id"]: index for index, item in enumerate(pair) if "Sequence" in item}
    between = pair[places.get("A", 0) + 1 : places.get("B", 0)]
    return {item["SpecialToken"]["id"] for item in between}


def _chat_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; a lone one is `default`."""
    value = settings.get("chat_template")
    if value is None and (file := folder / "chat_template.jinja").is_file():
        more = sorted((folder / "additional_chat_templates").glob("*.jinja"))
        return {"default": _read_text(file)} | {path.stem: _read_text(path) for path in more}
    if value is None and (file := folder / "chat_template.json").is_file():
        value = read_json_object(file).get("chat_template")
    match value:
        case None:
            return {}
        case str():
            return {"default": value}
        case list():
            return {
                "".join(c if c.isascii() and c.isalnum() else "_" for c in choice["name"]): choice["template"]
                for choice in cast("list[dict[str, str]]", value)
            }
        case _:
            raise ConversionError(f"{folder}: its chat_template is neither text nor a list of named ones.")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ConversionError(f"{path} is not UTF-8 text.") from error
