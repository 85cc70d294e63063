"""Conversations in the form that a template can show: what it has no form for is told in words.

Messages come in OpenAI's form, content as text and a call's arguments as JSON text, and are left as they were.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.capabilities import Capabilities
    from server.chat.formats.base import ChatFormat

    Message = dict[str, Any]

_INSTRUCTIONS = """\
# Tools

You can call functions. Their signatures are JSON between <tools> tags:
<tools>
{tools}
</tools>

To call a function, write its name and its arguments in just this form:
{sample}"""


def fit(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    can: Capabilities,
    style: ChatFormat,
) -> list[Message]:
    """Bring a conversation into the form that a template can show.

    Args:
        messages: the conversation.
        tools: those offered, in OpenAI's form.
        can: what the template can do.
        style: how the model writes calls, for what is told in words.

    Raises:
        RequestError: a call's arguments are no JSON object, but the template needs one.
    """
    fitted = [dict(message) for message in messages]
    if not can.late_systems:
        fitted = _systems_first(fitted)
    if tools and can.tools_in_system:
        _system(fitted)["tools"] = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    elif tools and not can.tools:
        _add_text(_system(fitted), _instructions(tools, style))
    _name_results(fitted)
    if not can.calls:
        fitted = [_calls_as_text(message, style) for message in fitted]
    elif not can.parallel_calls:
        fitted = _one_call_each(fitted)
    if not can.results and any(message["role"] == "tool" for message in fitted):
        fitted = _merged([_result_as_text(message) for message in fitted])
    if not can.system:
        fitted = _without_system(fitted)
    if not can.user_runs:
        fitted = _merged(fitted)
    return [_spelled(message, can) for message in fitted]


def _instructions(tools: Sequence[Mapping[str, Any]], style: ChatFormat) -> str:
    signatures = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return _INSTRUCTIONS.format(tools=signatures, sample=style.write([("function_name", '{"argument": "value"}')]))


def _system(messages: list[Message]) -> Message:
    """The conversation's system message, which is put first where there is none."""
    if not messages or messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": ""})
    return messages[0]


def _add_text(message: Message, text: str) -> None:
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [*content, {"type": "text", "text": text}]
    else:
        message["content"] = f"{content}\n\n{text}" if content else text


def _systems_first(messages: list[Message]) -> list[Message]:
    """System messages at the beginning as one, and later ones as words of the user's or of a result before them."""
    fitted: list[Message] = []
    for message in messages:
        if message["role"] != "system" or not fitted:
            fitted.append(message)
        elif fitted[-1]["role"] != "assistant":
            _add_text(fitted[-1], message["content"])
        else:
            fitted.append(message | {"role": "user"})
    return fitted


def _name_results(messages: list[Message]) -> None:
    """Give tool messages the name of the function that was called: some templates write it."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            if "id" in call:
                names[call["id"]] = call["function"]["name"]
        name = names.get(message.get("tool_call_id", ""))
        if message["role"] == "tool" and name and not message.get("name"):
            message["name"] = name


def _calls_as_text(message: Message, style: ChatFormat) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    functions = [call["function"] for call in calls]
    text = style.write([(one["name"], json.dumps(_parsed(one), ensure_ascii=False)) for one in functions])
    told = {key: value for key, value in message.items() if key != "tool_calls"}
    told["content"] = f"{message['content']}\n{text}" if message.get("content") else text
    return told


def _result_as_text(message: Message) -> Message:
    if message["role"] != "tool":
        return message
    return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}


def _merged(messages: list[Message]) -> list[Message]:
    """User messages that follow each other as one: many templates want roles to alternate."""
    merged: list[Message] = []
    for message in messages:
        before = merged[-1] if merged else {}
        mergeable = message["role"] == "user" == before.get("role")
        if mergeable and isinstance(before["content"], str) and isinstance(message["content"], str):
            before["content"] += "\n" + message["content"]
        else:
            merged.append(message)
    return merged


def _one_call_each(messages: list[Message]) -> list[Message]:
    """Messages with several calls as several messages, each with its call's result behind it."""
    results = {message["tool_call_id"]: message for message in messages if message.get("tool_call_id")}
    apart: list[Message] = []
    placed: set[str] = set()
    for message in messages:
        calls: list[Message] = message.get("tool_calls") or []
        if len(calls) < 2:
            if message.get("tool_call_id") not in placed:
                apart.append(message)
            continue
        for at, call in enumerate(calls):
            apart.append(message | {"tool_calls": [call], "content": "" if at else message.get("content")})
            if (result := results.get(call.get("id", ""))) is not None:
                apart.append(result)
                placed.add(call["id"])
    return apart


def _without_system(messages: list[Message]) -> list[Message]:
    """System messages as the beginning of the user's message that follows."""
    fitted: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting and isinstance(message["content"], str):
            fitted.append(message | {"content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            fitted.append(message)
    return [*fitted, *({"role": "user", "content": text} for text in waiting)]


def _spelled(message: Message, can: Capabilities) -> Message:
    """A message with its fields as the template wants them."""
    spelled = dict(message)
    if can.parts and isinstance(message.get("content"), str):
        spelled["content"] = [{"type": "text", "text": message["content"]}]
    if message.get("tool_call_id") and can.short_ids:
        spelled["tool_call_id"] = _short(message["tool_call_id"])
    if message.get("tool_calls"):
        spelled["tool_calls"] = [_spelled_call(call, can) for call in message["tool_calls"]]
        if not message.get("content"):
            spelled["content"] = "" if can.empty_content else None
    return spelled


def _spelled_call(call: Mapping[str, Any], can: Capabilities) -> dict[str, Any]:
    function = dict(call["function"])
    if can.argument_objects:
        function["arguments"] = _parsed(function)
    spelled = {"type": "function", **call, "function": function}
    if can.short_ids:
        spelled["id"] = _short(str(call.get("id")))
    return spelled


def _parsed(function: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments as an object. Raises RequestError where they are none."""
    arguments = function["arguments"]
    try:
        if not isinstance(arguments, dict):
            arguments = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestError(
            f"the arguments of a call to '{function['name']}' in messages are no JSON object; send them as the model "
            "gave them, or leave the call out",
            param="messages",
        )
    return cast("dict[str, Any]", arguments)


def _short(call_id: str) -> str:
    """Nine letters or digits for a call's id: itself where it is so, else told by its digest."""
    if len(call_id) == 9 and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]
