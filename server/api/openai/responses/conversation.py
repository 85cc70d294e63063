"""Items as messages that chat templates know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.api.openai.responses.items import FunctionCallItem, FunctionOutputItem, MessageItem, ReasoningItem
from server.api.openai.responses.options import whole_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.api.openai.responses.items import Known
    from server.chat.media import Shown
    from server.chat.template import Message


def to_messages(instructions: str | None, items: Iterable[Known], shown: Shown) -> list[Message]:
    """Translate a conversation.

    What the assistant did in a row (thoughts, text, calls) becomes one message of its own. System prompts at the
    beginning become one, since many templates know one only.

    Args:
        instructions: what comes before everything.
        items: the conversation's, in order.
        shown: takes in the images.
    """
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        match item:
            case MessageItem(role="assistant"):
                _assistant(messages)["content"] += item.read(shown)
            case MessageItem():
                _add(messages, "user" if item.role == "user" else "system", item.read(shown))
            case ReasoningItem():
                turn = _assistant(messages)
                turn["reasoning_content"] = turn.get("reasoning_content", "") + item.text
            case FunctionCallItem():
                function = {"name": whole_name(item.namespace, item.name), "arguments": item.arguments}
                calls: list[dict[str, Any]] = _assistant(messages).setdefault("tool_calls", [])
                calls.append({"id": item.call_id, "type": "function", "function": function})
            case FunctionOutputItem():
                result: Message = {"role": "tool", "tool_call_id": item.call_id, "content": item.read(shown)}
                if item.name:
                    result["name"] = whole_name(item.namespace, item.name)
                messages.append(result)
    return messages


def _assistant(messages: list[Message]) -> Message:
    """The assistant's turn that is going on, begun where there is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _add(messages: list[Message], role: str, text: str) -> None:
    if role == "system" and [message["role"] for message in messages] == ["system"]:
        messages[0]["content"] += f"\n\n{text}"
    else:
        messages.append({"role": role, "content": text})
