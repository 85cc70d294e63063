"""Items as messages that chat templates know."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from server.api.openai.responses.conversation import to_messages
from server.api.openai.responses.history import listed
from server.api.openai.responses.items import AnyItem, ItemReference, Known, encode_thoughts
from server.chat.media import Shown

ITEMS: TypeAdapter[list[Known | ItemReference]] = TypeAdapter(list[AnyItem])


def read(*items: dict[str, Any]) -> list[Known]:
    return [item for item in ITEMS.validate_python(list(items)) if not isinstance(item, ItemReference)]


def told(instructions: str | None, items: list[Known]) -> list[dict[str, Any]]:
    return to_messages(instructions, items, Shown())


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Paris"}'}


OUTPUT = {"type": "function_call_output", "call_id": "c1"}


def test_messages_stay_what_they_are_and_instructions_come_first() -> None:
    items = read(user("Hello"), {"type": "message", "role": "assistant", "content": "Hi"}, user("And?"))
    assert told("Be brief.", items) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "And?"},
    ]


def test_images_stand_where_they_were() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"}
    text = {"type": "input_text", "text": "What is it?"}
    items = read({"role": "user", "content": [image, text]}, {**OUTPUT, "output": [text, image]})
    shown = Shown()
    messages = to_messages(None, items, shown)
    prompt, media, _ = shown.place("|".join(message["content"] for message in messages), [])
    assert prompt == "What is it?|What is it?\n"
    assert [(medium.kind, medium.data, medium.at) for medium in media] == [("image", b"hi", 0), ("image", b"hi", 24)]
    assert listed(items)[0]["content"][0]["image_url"] == image["image_url"]


def test_what_comes_before_everything_becomes_one_system_prompt() -> None:
    items = read({"role": "developer", "content": "Use metres."}, user("Hi"), {"role": "system", "content": "Later."})
    messages = told("Be brief.", items)
    assert [message["role"] for message in messages] == ["system", "user", "system"]
    assert messages[0]["content"] == "Be brief.\n\nUse metres."


def test_what_the_assistant_did_in_a_row_is_one_message() -> None:
    items = read(
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hmm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        CALL,
        {**CALL, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c2", "output": "rain"},
        {"type": "function_call_output", "call_id": "?", "output": [{"type": "input_text", "text": "sun"}]},
    )
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert told(None, items) == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Hmm.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
        {"role": "tool", "tool_call_id": "?", "content": "sun"},
    ]


def test_thoughts_come_back_from_what_a_client_kept_of_them() -> None:
    encoded: dict[str, Any] = {"type": "reasoning", "summary": [], "encrypted_content": encode_thoughts("Hmm, ä.")}
    (message,) = told(None, read(encoded))
    assert message["reasoning_content"] == "Hmm, ä."
    with pytest.raises(ValidationError, match="was not made by brim"):
        read({**encoded, "encrypted_content": "gAAAA~"})


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"type": "web_search_call", "id": "w"}, "takes no input item of type 'web_search_call'"),
        ({"content": "Hi"}, "an input item needs a type"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}, "base64 text or a data URL"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "aGk=", "file_id": "f"}]},
            "brim keeps no files",
        ),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}, "brim reads no files"),
        ({**CALL, "colour": "red"}, "Extra inputs"),
    ],
)
def test_what_brim_does_not_know_is_refused_by_name(item: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        read(item)


def test_an_id_alone_refers_to_a_kept_item() -> None:
    assert ITEMS.validate_python([{"id": "msg_1"}, {"id": "msg_1", "type": None}]) == [
        ItemReference(id="msg_1"),
        ItemReference(id="msg_1"),
    ]


def test_listed_items_have_ids_and_can_be_read_again() -> None:
    items = read(user("Hi"), {"role": "assistant", "content": "Yes"}, CALL, {"type": "reasoning", "id": "rs"})
    found = listed(items)
    assert [one["id"].split("_")[0] for one in found] == ["msg", "msg", "fc", "rs"]
    assert all(one["status"] == "completed" for one in found)
    assert found[0]["content"] == [{"type": "input_text", "text": "Hi"}]
    assert found[1]["content"] == [{"type": "output_text", "text": "Yes", "annotations": [], "logprobs": []}]
    assert told(None, read(*found)) == told(None, items)
    assert listed(read(*found)) == found
