"""Rendering conversations with the chat template of the checkpoint, as Hugging Face and the server render it."""

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

from demo.example import Example, Message, Tool

END_OF_TEXT = "<|endoftext|>"
TEMPLATE = (Path(__file__).parent / "template.jinja").read_text(encoding="utf-8").strip()


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json  # Jinja's own escapes HTML and sorts keys
    return environment


_COMPILED = _environment().from_string(TEMPLATE)


def render(
    messages: Sequence[Message], tools: Sequence[Tool] = (), *, generate: bool = False, thinking: bool = False
) -> str:
    """Return the prompt text of a conversation.

    Args:
        messages: The turns in order.
        tools: The functions offered; none leaves the tool preamble out.
        generate: End with the opening of an assistant turn.
        thinking: With `generate`, open a `<think>` block as well.
    """
    return _COMPILED.render(
        messages=messages, tools=list(tools) or None, add_generation_prompt=generate, enable_thinking=thinking
    )


def training_text(example: Example) -> str:
    """Return the whole text of an example, as one training document."""
    if example.plain:
        return example.messages[0]["content"] + END_OF_TEXT
    return render(example.messages, example.tools)
