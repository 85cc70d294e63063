from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from converter.errors import ConversionError
from converter.special_tokens import read_special_tokens

if TYPE_CHECKING:
    from pathlib import Path

ADDED = [{"id": 7, "content": "<s>"}, {"id": 8, "content": "</s>"}, {"id": 9, "content": "<end>"}]


def template(*items: str, pair: tuple[str, ...] = ()) -> dict[str, Any]:
    def parse(items: tuple[str, ...]) -> list[dict[str, Any]]:
        return [{"Sequence": {"id": item}} if item in "AB" else {"SpecialToken": {"id": item}} for item in items]

    return {"type": "TemplateProcessing", "single": parse(items), "pair": parse(pair)}


def settings(folder: Path, **values: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def test_the_tokenizer_names_them_and_config_fills_the_gaps(tmp_path: Path) -> None:
    settings(tmp_path, bos_token="<s>", eos_token={"content": "</s>"}, add_eos_token=True)
    config = {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 4, "unk_token_id": None, "cls_token_id": 99}
    special = read_special_tokens(tmp_path, config, {"added_tokens": ADDED}, tokens=50)
    assert special.ids == {"bos": 7, "eos": 8, "pad": 4}
    assert special.added == {"eos": True}


def test_without_tokenizer_json_config_alone_has_ids(tmp_path: Path) -> None:
    settings(tmp_path, bos_token="<s>", add_bos_token=True)
    special = read_special_tokens(tmp_path, {"bos_token_id": 1}, None, tokens=50)
    assert special.ids == {"bos": 1}
    assert special.added == {"bos": True}


def test_the_post_processor_decides_what_is_added(tmp_path: Path) -> None:
    settings(tmp_path, bos_token="<s>", eos_token="</s>", add_bos_token=False)
    tokenizer = {"added_tokens": ADDED, "post_processor": template("<s>", "A")}
    assert read_special_tokens(tmp_path, {}, tokenizer, tokens=50).added == {"bos": True}

    tokenizer["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template("<s>", "A")]}
    assert read_special_tokens(tmp_path, {}, tokenizer, tokens=50).added == {"bos": True, "eos": False}

    tokenizer["post_processor"] = template("A", "<end>")
    special = read_special_tokens(tmp_path, {}, tokenizer, tokens=50)
    assert special.ids == {"bos": 7, "eos": 9, "eot": 8}
    assert special.added == {"eos": True, "bos": False}


def test_a_separator_is_added_if_it_stands_between_two_texts(tmp_path: Path) -> None:
    settings(tmp_path, bos_token="<s>", eos_token="</s>")
    tokenizer = {"added_tokens": ADDED, "post_processor": template("<s>", "A", pair=("<s>", "A", "<s>", "B"))}
    assert read_special_tokens(tmp_path, {}, tokenizer, tokens=50).added == {"bos": True, "sep": False}
    tokenizer["post_processor"] = template("<s>", "A", pair=("<s>", "A", "</s>", "B"))
    assert read_special_tokens(tmp_path, {}, tokenizer, tokens=50).added == {"bos": True, "sep": True}


@pytest.mark.parametrize("form", ["text", "list", "jinja", "json"])
def test_chat_template(tmp_path: Path, form: str) -> None:
    text = "{{ messages[0].content }} ü"
    match form:
        case "text":
            settings(tmp_path, chat_template=text)
        case "list":
            named = [{"name": "default", "template": text}, {"name": "tool use", "template": "tools"}]
            settings(tmp_path, chat_template=named)
        case "jinja":
            (tmp_path / "chat_template.jinja").write_text(text)
            (tmp_path / "additional_chat_templates").mkdir()
            (tmp_path / "additional_chat_templates/tool_use.jinja").write_text("tools")
        case _:
            (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    templates = read_special_tokens(tmp_path, {}, None, tokens=50).chat_templates
    assert templates == {"default": text} | ({"tool_use": "tools"} if form in ("list", "jinja") else {})


def test_chat_template_of_a_wrong_kind(tmp_path: Path) -> None:
    settings(tmp_path, chat_template=5)
    with pytest.raises(ConversionError, match="neither text nor a list"):
        read_special_tokens(tmp_path, {}, None, tokens=50)
