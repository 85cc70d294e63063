"""Pieces of the grammars under which calls are written, in llguidance's dialect of Lark.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from server.chat.formats.closed import closed
from server.chat.formats.parameters import parameters
from server.engine.patterns import is_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.tools import Tool


def pattern(text: str) -> str:
    """A regular expression for just this text, between slashes."""
    return "".join(char if char.isalnum() or char == "_" else f"\\x{{{ord(char):x}}}" for char in text)


LOOSE = """WS: /[ \\t\\r\\n]{1,24}/
open: "[" WS?
comma: WS? "," WS?
close: WS? "]"
"""
"""White space as a model likes it, and what a list is written with.

Here as in `lexemes` each terminal ends where one of JSON's would. llguidance takes the longest match and never goes
back on it: a longer one would keep out any JSON that begins with the same letters.
"""


def lexemes(*parts: str) -> str:
    """An expression for texts one behind the other, with some white space between any two; for use with `LOOSE`."""
    return " WS? ".join(literal(part) if part else "" for part in parts)


def literal(text: str) -> str:
    """A terminal for just this text."""
    return json.dumps(text, ensure_ascii=False)


def mark(text: str, special: Mapping[str, int]) -> str:
    """An expression for a format's mark: what the model has as tokens (`special`) is those, the rest its text."""
    inside = [token for token in special if token in text]
    if not inside:
        return literal(text)
    parts = re.split("(" + "|".join(map(re.escape, sorted(inside, key=len, reverse=True))) + ")", text)
    return " ".join(f"<[{special[part]}]>" if part in special else literal(part) for part in parts if part)


def any_mark(texts: Sequence[str], special: Mapping[str, int]) -> str:
    """An expression for any of some marks."""
    return f"({' | '.join(mark(text, special) for text in texts)})"


def sequence(first: str, other: str, end: str = "", *, parallel: bool) -> str:
    """The rule `calls`: one call, where `parallel` any number of others, and an end."""
    return f"calls: {first} ({other})* {end}\n" if parallel else f"calls: {first} {end}\n"


def any_of(name: str, tools: Sequence[Tool], body: Callable[[Tool, str], str]) -> str:
    """Rules of which `name` is a call to any of `tools`.

    Args:
        name: of the rule.
        tools: at least one.
        body: given a tool and the name of a rule for its arguments, what a call to it looks like.
    """
    rules = [f"{name}: " + " | ".join(f"{name}_{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        rules.append(f"{name}_{index}: {body(tool, f'arguments_{index}')}")
        schema = closed({"type": "object", **tool.parameters})
        rules.append(f"arguments_{index}: {_json(schema, strict=tool.strict)}")
    return "\n".join(rules) + "\n"


def json_calls(
    tools: Sequence[Tool], *, keys: tuple[str, str] = ("name", "arguments"), begin: str = "{", end: str = '"}"'
) -> str:
    """Rules of which `object` is a call in JSON, each name bound to its own tool's schema.

    Args:
        tools: at least one.
        keys: of the name and of the arguments.
        begin: text before the name's key.
        end: an expression for what follows the arguments.
    """

    def body(tool: Tool, arguments: str) -> str:
        head = f'{begin}"{keys[0]}": {literal(tool.name)}, "{keys[1]}": '
        return f"{literal(head)} {arguments} {end}"

    return any_of("object", tools, body)


def spaced_calls(tools: Sequence[Tool], name: str, arguments: Sequence[str]) -> str:
    """Rules of which `object` is a call in JSON, spaced as a model likes; it may say that it is a function's.

    Args:
        tools: at least one.
        name: the key of the name.
        arguments: the keys that the arguments may have.
    """
    kind = lexemes('"type"', ":", '"function"', ",", "")
    keys = " | ".join(literal(f'"{key}"') for key in arguments)

    def body(tool: Tool, arguments: str) -> str:
        named = lexemes(f'"{name}"', ":", f'"{tool.name}"', ",", "")
        return f'"{{" WS? ({kind})? {named} ({keys}) {lexemes("", ":", "")} {arguments} WS? "}}"'

    return any_of("object", tools, body)


def json_value(parameter: Parameter) -> str:
    """An expression for JSON that a parameter's schema allows."""
    return _json(closed(parameter.schema), strict=parameter.strict)


def _json(schema: dict[str, Any], *, strict: bool) -> str:
    return f"%{'json' if strict else 'lenient_json'} {json.dumps(schema, ensure_ascii=False)}"


def separate_arguments(
    name: str,
    tools: Sequence[Tool],
    argument: Callable[[Parameter, str], str],
    frame: Callable[[Tool], tuple[str, str, str]],
) -> str:
    """Rules of which `name` is a call whose arguments are written one by one, in the order of the tool's schema.

    Args:
        name: of the rule.
        tools: at least one.
        argument: given a parameter and the name of a rule, that rule.
        frame: given a tool, the expressions before its arguments, between and after them.

    Raises:
        RequestError: a tool's parameters cannot be held to one by one.
    """
    rules = [f"{name}: " + " | ".join(f"{name}_{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        head, separator, tail = frame(tool)
        own = f"{name}_{index}"
        found = parameters(tool)
        rules.append(f"{own}: {head} {own}_first_0 {tail}")
        for at, parameter in enumerate(found):
            # optional ones may be left out, and a separator stands only between two that are there
            without = ("", "") if parameter.required else (f" | {own}_first_{at + 1}", f" | {own}_after_{at + 1}")
            rules.append(f"{own}_first_{at}: {own}_argument_{at} {own}_after_{at + 1}{without[0]}")
            rules.append(f"{own}_after_{at}: {separator} {own}_argument_{at} {own}_after_{at + 1}{without[1]}")
            rules.append(argument(parameter, f"{own}_argument_{at}"))
        rules += [f'{own}_first_{len(found)}: ""', f'{own}_after_{len(found)}: ""']
    return "\n".join(rules) + "\n"


def all_until(end: str, special: Mapping[str, int], rule: str, allowed: str = "/(?s:.*)/") -> str:
    """The rule `rule`: text that the expression `allowed` matches, and the mark that ends it."""
    terminal = rule.upper()
    tokens = [end.index(token) for token in special if token in end]
    if not tokens:
        return f"{rule}[suffix={literal(end)}]: {terminal}\n{terminal}: {allowed}"
    before, after = end[: min(tokens)], end[min(tokens) :]
    # a token ends text by itself, and where it is spelt out the reader does not know the difference
    ending = literal(before) if before else ""
    return f"{rule}: {terminal} {mark(after, special)}\n{terminal}: ({allowed} & {text_without([after])}) {ending}"


def text_without(marks: Sequence[str]) -> str:
    """An expression for any text in which none of some marks is spelt out."""
    return f"/(?s:.*)/ & ~/(?s:.*)({'|'.join(map(pattern, marks))})(?s:.*)/" if marks else "/(?s:.*)/"


def text_until(
    end: str,
    special: Mapping[str, int],
    parameter: Parameter,
    rule: str,
    *,
    padding: str = "",
    without_tags: bool = False,
) -> str:
    """The rule `rule`: bare text that a parameter's schema allows, and the mark that ends it.

    Args:
        end: the mark.
        padding: what stands before it, but may be missing where any text is allowed.
        special: the model's special tokens by their text.
        parameter: whose value the text is.
        rule: the rule's name.
        without_tags: whether the text may have no `<`.
    """
    schema = parameter.schema
    choices: list[Any] = [schema["const"]] if "const" in schema else schema.get("enum", [])
    if choices:
        return f"{rule}: ({' | '.join(literal(choice) for choice in choices)}) {mark(padding + end, special)}"
    constraints: list[str] = []
    if "pattern" in schema and (parameter.strict or is_regular(schema["pattern"])):
        constraints.append(_searched(schema["pattern"]))
    if "minLength" in schema or "maxLength" in schema:
        constraints.append(f"/[^<]{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}/")
    elif constraints or without_tags:
        constraints.append("/[^<]*/")
    if constraints:
        return all_until(padding + end, special, rule, " & ".join(constraints))
    return all_until(end, special, rule)


def _searched(text: str) -> str:
    """A schema's pattern, which may match anywhere, as a terminal that matches all of the text."""
    before = "" if text.startswith("^") else "(?s:.*)"
    after = "" if text.endswith("$") else "(?s:.*)"
    inner = re.sub(r"(?<!\\)/", r"\\/", text.removeprefix("^").removesuffix("$"))
    return f"/{before}({inner}){after}/"
