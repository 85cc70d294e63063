"""Conversations in templates of every ability: what a template cannot show is told in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat.template import ChatTemplate
from server.errors import RequestError

TOOLS = [
    {"type": "function", "function": {"name": name, "description": "Looks.", "parameters": {"type": "object"}}}
    for name in ("look", "listen")
]


def _call(name: str, arguments: str, call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is there?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [_call("look", '{"at": "sea"}', "call_1"), _call("listen", "{}", "call_2")],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "ships"},
    {"role": "tool", "tool_call_id": "call_2", "content": "gulls"},
]

PLAIN = """\
{% for m in messages %}{% if m.role not in ROLES %}{{ raise_exception('no such role') }}{% endif -%}
<{{ m.role }}>{{ m.content }}
{% endfor %}"""

HERMES = """\
{%- if tools %}<tools>{{ tools | tojson }}</tools>{% endif -%}
{%- for m in messages -%}
<{{ m.role }}>{{ m.content or '' }}
{%- for c in m.tool_calls or [] -%}
<tool_call>{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}</tool_call>
{%- endfor -%}
{%- endfor -%}"""


def render(source: str, messages: list[dict[str, Any]] | None = None, tools: Any = TOOLS) -> str:
    return ChatTemplate(source).render(messages or CONVERSATION, tools=tools).text


def test_a_template_without_tools_is_told_them_in_the_system_message() -> None:
    text = render(PLAIN.replace("ROLES", "['system', 'user', 'assistant']"))
    system, rest = text.split("<user>", 1)
    assert system.startswith("<system>Be brief.\n\n# Tools\n")
    assert json.dumps(TOOLS[0]["function"]) in system
    assert '<tool_call>\n{"name": "function_name", "arguments": {"argument": "value"}}\n</tool_call>' in system
    assert rest == (
        "What is there?\n"
        '<assistant><tool_call>\n{"name": "look", "arguments": {"at": "sea"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "listen", "arguments": {}}\n</tool_call>\n'
        "<user><tool_response>\nships\n</tool_response>\n<tool_response>\ngulls\n</tool_response>\n"
    )


def test_a_template_without_system_messages_has_them_before_the_users_words() -> None:
    source = PLAIN.replace("ROLES", "['user', 'assistant']")
    assert render(source, CONVERSATION[:2], tools=None) == "<user>Be brief.\n\nWhat is there?\n"
    assert render(source, CONVERSATION[:2]).startswith("<user>Be brief.\n\n# Tools\n")
    assert render(source, CONVERSATION[:1], tools=None) == "<user>Be brief.\n"


LATE: list[dict[str, Any]] = [
    *CONVERSATION[:1],
    {"role": "system", "content": "Be kind."},
    CONVERSATION[1],
    {"role": "system", "content": "It is late."},
    {"role": "assistant", "content": "Ships."},
    {"role": "system", "content": "It is early."},
    {"role": "user", "content": "And now?"},
    {"role": "user", "content": "And then?"},
]
"""As coding agents send it: what changes on the way is told in system messages, and the user says several things."""

FIRST_ONLY = "{% if m.role == 'system' and not loop.first %}{{ raise_exception('not first') }}{% endif %}"
SKIPPED = "{% if m.role == 'system' and not loop.first %}{% continue %}{% endif %}"
ALTERNATING = "{% if loop.previtem and m.role == loop.previtem.role %}{{ raise_exception('not in turn') }}{% endif %}"


def test_a_template_that_takes_system_messages_anywhere_has_them_where_they_stand() -> None:
    text = render(PLAIN.replace("ROLES", "['system', 'user', 'assistant']"), LATE, tools=None)
    assert text == "".join(f"<{message['role']}>{message['content']}\n" for message in LATE)


@pytest.mark.parametrize("rule", [FIRST_ONLY, SKIPPED])
def test_a_template_with_one_system_message_has_the_others_as_words_of_the_user(rule: str) -> None:
    source = PLAIN.replace("ROLES", "['system', 'user', 'assistant']").replace("<{{", rule + "<{{")
    assert render(source, LATE, tools=None) == (
        "<system>Be brief.\n\nBe kind.\n<user>What is there?\n\nIt is late.\n<assistant>Ships.\n"
        "<user>It is early.\n<user>And now?\n<user>And then?\n"
    )


def test_a_template_whose_roles_alternate_has_what_the_user_says_in_a_row_as_one() -> None:
    source = PLAIN.replace("ROLES", "['user', 'assistant']").replace("<{{", ALTERNATING + "<{{")
    assert render(source, LATE, tools=None) == (
        "<user>Be brief.\n\nBe kind.\n\nWhat is there?\n\nIt is late.\n<assistant>Ships.\n"
        "<user>It is early.\nAnd now?\nAnd then?\n"
    )


def test_what_a_template_cannot_show_after_a_result_is_told_with_it() -> None:
    source = HERMES.replace("<{{ m.role }}>", FIRST_ONLY + "<{{ m.role }}>")
    text = render(source, [*CONVERSATION, {"role": "system", "content": "It is late."}])
    assert text.endswith("<tool>ships<tool>gulls\n\nIt is late.")


def test_a_template_in_the_formats_own_style_shows_tools_itself() -> None:
    text = render(HERMES)
    assert text.startswith(f"<tools>{json.dumps(TOOLS)}</tools><system>Be brief.<user>")
    assert '<tool_call>{"name": "look", "arguments": {"at": "sea"}}</tool_call><tool_call>{"name": "listen"' in text
    assert text.endswith("<tool>ships<tool>gulls")


def test_results_are_shown_by_a_template_that_has_no_form_for_calls() -> None:
    source = '{% if 0 %}<tool_call>{"name": 0, "arguments": 0}</tool_call>{% endif %}' + PLAIN
    text = render(source.replace("ROLES", "['system', 'user', 'assistant', 'tool']"))
    assert text.endswith('"arguments": {}}\n</tool_call>\n<tool>ships\n<tool>gulls\n')


def test_tools_are_shown_under_the_name_that_the_template_has_for_them() -> None:
    text = render(HERMES.replace("if tools", "if xml_tools").replace("tools | tojson", "xml_tools | tojson"))
    assert text.startswith(f"<tools>{json.dumps(TOOLS)}</tools><system>Be brief.<user>")


def test_arguments_stay_text_where_the_template_joins_them_to_text() -> None:
    source = HERMES.replace("{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}")
    assert '"arguments": {"at": "sea"}}' in render(source)


def test_arguments_that_are_no_object_are_a_400_where_the_template_needs_one() -> None:
    messages = [CONVERSATION[1], {"role": "assistant", "content": "", "tool_calls": [_call("look", '{"at', "call_1")]}]
    with pytest.raises(RequestError, match="arguments of a call to 'look'"):
        render(HERMES, messages)


def test_calls_come_one_by_one_where_the_template_takes_one_a_message() -> None:
    alone = "{%- if m.tool_calls and m.tool_calls | length != 1 -%}{{ raise_exception('one call') }}{%- endif -%}"
    text = render(HERMES.replace("<{{ m.role }}>", alone + "<{{ m.role }}>"))
    assert text.endswith(
        '<assistant><tool_call>{"name": "look", "arguments": {"at": "sea"}}</tool_call><tool>ships'
        '<assistant><tool_call>{"name": "listen", "arguments": {}}</tool_call><tool>gulls'
    )


def test_ids_are_shortened_where_the_template_wants_nine_characters() -> None:
    wanting = "{%- if (c.id | length) != 9 -%}{{ raise_exception('9 characters') }}{%- endif -%}[{{ c.id }}]"
    source = HERMES.replace("<tool_call>{", wanting + "<tool_call>{").replace(
        "<{{ m.role }}>", "<{{ m.role }} {{ m.tool_call_id or '' }}>"
    )
    text = render(source)
    first, second = (part.split("]")[0] for part in text.split("[")[-2:])
    assert first != second
    assert f"<tool {first}>ships<tool {second}>gulls" in text


def test_content_is_parts_where_the_template_takes_only_those() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text + '' }}{% endfor %}{% endfor %}"
    assert render(source, CONVERSATION[:2], tools=None) == "<system>Be brief.<user>What is there?"


def test_tools_come_with_the_system_message_where_the_template_looks_for_them_there() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.tools %}<|tool|>{{ m.tools }}<|/tool|>{% endif %}{% endfor %}"  # noqa: E501
    text = render(source, CONVERSATION[1:2])
    assert text == f"<system><|tool|>{json.dumps([tool['function'] for tool in TOOLS])}<|/tool|><user>What is there?"


def test_results_have_the_name_of_their_function() -> None:
    text = render(HERMES.replace("<{{ m.role }}>", "<{{ m.role }} {{ m.name or '' }}>"))
    assert text.endswith("<tool look>ships<tool listen>gulls")


def test_calls_without_ids_are_shown_as_they_come() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [CONVERSATION[1], {"role": "assistant", "content": "", "tool_calls": [call]}]
    text = render(HERMES, [*messages, {"role": "tool", "content": "ships"}])
    assert text.endswith('<tool_call>{"name": "look", "arguments": {}}</tool_call><tool>ships')


def test_a_template_that_fails_whatever_it_is_given_says_so_when_it_is_used() -> None:
    with pytest.raises(RequestError, match="line 1: never"):
        render("{{ raise_exception('never') }}")
