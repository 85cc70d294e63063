"""Anthropic's turns as messages that chat templates know."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from server.api.anthropic.blocks import AnyBlock, Block, TextBlock
from server.api.anthropic.conversation import to_messages
from server.chat.media import Shown

BLOCKS: TypeAdapter[list[Block]] = TypeAdapter(list[AnyBlock])


def turn(role: str, *blocks: dict[str, Any]) -> tuple[str, list[Block]]:
    return role, BLOCKS.validate_python(list(blocks))


def told(system: str | list[TextBlock] | None, turns: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    return to_messages(system, turns, Shown())


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def test_plain_texts_stay_what_they_are() -> None:
    assert told("Be brief.", [("user", "Hello"), ("assistant", "Hi"), ("user", "And?")]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "And?"},
    ]


def test_pieces_of_one_turn_and_turns_of_one_role_are_joined() -> None:
    messages = told(
        [TextBlock(type="text", text="One."), TextBlock(type="text", text="Two.")],
        [turn("user", text("a"), text("b")), ("user", "c"), turn("assistant", text("x"), text("y"))],
    )
    assert [message["content"] for message in messages] == ["One.\nTwo.", "a\nb\nc", "xy"]


def test_a_tools_result_becomes_a_message_of_its_own_in_its_place() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("rain"), text("12 °C")]}
    failed = {"type": "tool_result", "tool_use_id": "t2", "content": "no such city", "is_error": True}
    messages = told(None, [turn("assistant", text("Let me see."), use), turn("user", result, failed, text("?"))])
    assert messages == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "rain\n12 °C"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no such city"},
        {"role": "user", "content": "?"},
    ]


def test_thoughts_go_back_to_the_model_and_redacted_ones_do_not() -> None:
    thinking = {"type": "thinking", "thinking": "Hmm.", "signature": "s"}
    redacted = {"type": "redacted_thinking", "data": "xxxx"}
    assert told(None, [turn("assistant", thinking, redacted, text("Yes."))]) == [
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hmm."}
    ]


def test_documents_and_search_results_are_read_as_text() -> None:
    document = {
        "type": "document",
        "title": "Rules",
        "context": "From 1990.",
        "source": {"type": "text", "media_type": "text/plain", "data": "No running."},
    }
    found = {"type": "search_result", "title": "Pool", "source": "https://pool.example", "content": [text("Open.")]}
    (message,) = told(None, [turn("user", document, found)])
    assert message["content"] == "Rules\nFrom 1990.\nNo running.\nPool\nhttps://pool.example\nOpen."


def test_what_is_meant_for_anthropics_billing_does_not_reach_the_model() -> None:
    system = ["x-anthropic-billing-header: cc_version=2; cch=1f", "You are helpful."]
    (message,) = told([TextBlock(type="text", text=one) for one in system], [])
    assert message == {"role": "system", "content": "You are helpful."}


def test_images_stand_where_they_were() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text("Seen:"), image]}
    shown = Shown()
    messages = to_messages(None, [turn("user", image, text("What is it?"), result)], shown)
    prompt, media, _ = shown.place("|".join(message["content"] for message in messages), [])
    assert prompt == "\nWhat is it?|Seen:\n"
    assert [(medium.kind, medium.data, medium.at) for medium in media] == [("image", b"hi", 0), ("image", b"hi", 19)]
