"""What a chat template can do and how it wants its messages, found by trying: it is a program, and says it nowhere.

The idea of probing is llama.cpp's (common/jinja/caps.cpp).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, Any]
    Render = Callable[[list[Message], list[dict[str, Any]] | None], str | None]

NEEDLE, OTHER, RESULT = "zq-needle-7", "zq-other-8", "zq-result-9"
LONG_ID, SHORT_ID = "call_0123456789abcdefghijkl", "aB3456789"
_HELLO: Message = {"role": "user", "content": "Hello"}
_OBJECT = {"where": NEEDLE}
_TEXT = json.dumps(_OBJECT)


@dataclass(frozen=True)
class Capabilities:
    """What a template can do.

    Attributes:
        parts: content must be a list of parts, not text.
        system: system messages are shown.
        late_systems: system messages are shown wherever they stand, however many there are.
        user_runs: a user's message may follow another of the user's.
        tools: the variable `tools` is shown.
        tools_in_system: tools are shown where the system message carries them, as JSON text.
        calls: an assistant's tool calls are shown.
        parallel_calls: several calls of one message are shown.
        argument_objects: a call's arguments must be an object, not JSON text.
        empty_content: a message that only calls must have empty content, not null.
        results: messages of the role `tool` are shown.
        short_ids: a call's id must have nine letters or digits.
    """

    parts: bool = False
    system: bool = True
    late_systems: bool = True
    user_runs: bool = True
    tools: bool = True
    tools_in_system: bool = False
    calls: bool = True
    parallel_calls: bool = True
    argument_objects: bool = False
    empty_content: bool = False
    results: bool = True
    short_ids: bool = False


def probe(render: Render) -> Capabilities:
    """Find out what a template can do.

    Args:
        render: turns messages and tools into text; None where the template fails.
    """
    tools = _shows(render, [_HELLO], [_tool(NEEDLE)]) or _shows(render, [_as_parts(_HELLO)], [_tool(NEEDLE)])
    offered = [_tool("f"), _tool("g")] if tools else None
    named = _HELLO | {"content": NEEDLE}
    parts = not _shows(render, [named], offered) and _shows(render, [_as_parts(named)], offered)
    if not parts and render([_HELLO], offered) is None:
        return Capabilities()  # it fails whatever it is given: let requests see why
    wrapped: Callable[[Message], Message] = _as_parts if parts else lambda message: message
    answer = {"role": "assistant", "content": "Hello"}
    early, late, last = (wrapped({"role": "system", "content": text}) for text in (NEEDLE, OTHER, RESULT))
    equipped = {"role": "system", "content": "Hello", "tools": json.dumps([_tool(NEEDLE)["function"]])}
    hello = wrapped(_HELLO)
    without = render([hello], offered) or ""
    spread = render([early, hello, late, answer, hello, last], offered) or ""
    runs = render([wrapped(_HELLO | {"content": text}) for text in (OTHER, NEEDLE)], offered) or ""

    def with_calls(calls: list[Message], content: str | None) -> str:
        """The text with calls and a result, unless it has values as Python prints them."""
        asked = {"role": "assistant", "content": content, "tool_calls": calls}
        result = {"role": "tool", "tool_call_id": calls[0]["id"], "name": "f", "content": RESULT}
        rendered = render([hello, asked, result], offered) or ""
        return "" if any(rendered.count(text) > without.count(text) for text in ("None", "{'")) else rendered

    # objects first: some templates that take text too would write it between braces of their own
    forms: list[tuple[str | None, Any]] = [(content, form) for content in (None, "") for form in (_OBJECT, _TEXT)]
    content, arguments = next(
        (form for form in forms if NEEDLE in with_calls([_call("f", form[1])], form[0])), ("", None)
    )
    calls = arguments is not None
    first = _call("f", arguments)
    told = render([hello, wrapped(answer), {"role": "tool", "name": "f", "content": RESULT}], offered) or ""
    return Capabilities(
        parts=parts,
        system=_shows(render, [early, hello], offered),
        late_systems=all(text in spread for text in (NEEDLE, OTHER, RESULT)),
        user_runs=NEEDLE in runs and OTHER in runs,
        tools=tools,
        tools_in_system=not tools and _shows(render, [equipped, hello]),
        calls=calls,
        parallel_calls=calls and OTHER in with_calls([first, _call(OTHER, arguments)], content),
        argument_objects=arguments is _OBJECT,
        empty_content=content is not None,
        results=RESULT in (with_calls([first], content) if calls else told),
        short_ids=calls and NEEDLE not in with_calls([first | {"id": LONG_ID}], content),
    )


def _shows(render: Render, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> bool:
    rendered = render(messages, tools)
    return rendered is not None and NEEDLE in rendered and "'text'" not in rendered


def _as_parts(message: Message) -> Message:
    return message | {"content": [{"type": "text", "text": message["content"]}]}


def _call(name: str, arguments: Any) -> Message:
    return {"id": SHORT_ID, "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool(name: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"where": {"type": "string", "description": "A place."}}}
    return {"type": "function", "function": {"name": name, "description": "Looks.", "parameters": schema}}
