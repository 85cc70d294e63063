"""Renders messages into prompt text with a model's own Jinja chat template, in a sandbox.

The environment has what templates on the Hugging Face hub rely on: `raise_exception`, `strftime_now`, a `tojson` that
does not escape HTML, loop controls, and the `generation` tag.
Source: https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, cast

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.chat.capabilities import Capabilities, probe
from server.chat.fitting import fit
from server.chat.formats import detect
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template
    from jinja2.parser import Parser

    from server.chat.formats.base import ChatFormat

Message = dict[str, Any]

CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


_SWITCHES = frozenset({"enable_thinking", "thinking", "reasoning"})
_XML_TOOLS = "xml_tools"
"""What SmolLM3's template calls the tools that are called in JSON."""


@dataclass(frozen=True)
class Prompt:
    """The text a model is given, and the character offsets in it at which messages end.

    `begun` is the beginning of the answer with which it ends, where the conversation brings one.
    """

    text: str
    boundaries: list[int]
    begun: str = ""


class ChatTemplate:
    """A compiled chat template, and what it can do.

    Args:
        source: the Jinja source; None takes ChatML.
        special_tokens: texts under the names templates use (`bos_token`, `eos_token`, ...).
        chat_format: how the model writes reasoning and calls; None tells it from the source.

    Attributes:
        format: how the model writes reasoning and calls.
        can: what the template itself has a form for; the rest is told to the model in words.
        variables: what the template may be told, by name.
        switches: those of its variables that turn reasoning on and off.

    A template that does not compile is reported by `render`: a model whose template is broken can still complete text.
    """

    def __init__(
        self,
        source: str | None,
        special_tokens: Mapping[str, str] | None = None,
        chat_format: ChatFormat | None = None,
    ) -> None:
        self.source = source or CHATML
        self.format = chat_format or detect(self.source)
        self.can = Capabilities()
        self.variables: frozenset[str] = frozenset()
        self.switches: frozenset[str] = frozenset()
        self._globals = dict(special_tokens or {})
        self._template: Template | None = None
        self._fault: RequestError | None = None
        try:
            self._template = _ENVIRONMENT.from_string(self.source, globals=_GLOBALS)
        except TemplateSyntaxError as error:
            self._fault = template_fault(error.message or "syntax error", error.lineno)
            return
        except Exception as error:  # what is constant in a template is computed here already
            self._fault = template_fault(_reason(error))
            return
        self.variables = frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source)))
        self.switches = _SWITCHES & self.variables
        self.can = probe(self._attempt)
        if chat_format is None and not self.format.recognises(self.source):
            # it may show tools, but the model would call them in a way that is not known here
            self.can = replace(self.can, tools=False, tools_in_system=False, calls=False, results=False)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        thinking: bool | None = None,
    ) -> Prompt:
        """Turn a conversation into a prompt that ends where the assistant's answer begins.

        Args:
            messages: the turns, in OpenAI's form with plain text content. Where the last one is the assistant's, the
                prompt ends with its text.
            tools: the functions offered, in OpenAI's form.
            variables: further variables for the template (`chat_template_kwargs`).
            thinking: whether to reason first, where the template lets one choose; None leaves it to the template.

        Raises:
            RequestError: the template does not compile, fails, or refuses these messages; the message names its line.
        """
        begun = ""
        if len(messages) > 1 and _may_go_on(messages[-1]):
            begun, messages = messages[-1]["content"], messages[:-1]
        fitted = fit(messages, tools or (), self.can, self.format)
        switches = {} if thinking is None else dict.fromkeys(self.switches, thinking)
        offered = list(tools) if tools and self.can.tools else None
        names = {**self._globals, _XML_TOOLS: offered, **switches, **(variables or {}), "tools": offered}
        text = self._render(fitted, {**names, "add_generation_prompt": True})
        whole = self._going_on(text, begun) if begun else text
        return Prompt(whole, self._boundaries(text, fitted, names), begun)

    def _going_on(self, text: str, begun: str) -> str:
        """A prompt with the beginning of the answer, which is not to be taken for reasoning."""
        end = self.format.open_reasoning(text)
        if end and end not in begun:
            text += f"{end}\n\n"
        return text + self.format.text_opening + begun

    def _attempt(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> str | None:
        try:
            names = {**self._globals, _XML_TOOLS: tools, "tools": tools, "add_generation_prompt": True}
            return self._render(messages, names)
        except RequestError:
            return None

    def _render(self, messages: Sequence[Message], names: Mapping[str, Any]) -> str:
        if self._template is None:
            assert self._fault
            raise self._fault
        try:
            return self._template.render(names, messages=list(messages))
        except RequestError:
            raise
        except Exception as error:  # a template can raise anything: it is the model author's program
            raise template_fault(_reason(error), _line_in_template(error)) from error

    def _boundaries(self, text: str, messages: Sequence[Message], names: Mapping[str, Any]) -> list[int]:
        """Where the system message, the message before the last, and the last one end, as far as the text shows it.

        A template may render a message differently once others follow it; an offset counts only if the shorter
        conversation's text is where the longer one's begins.
        """
        lengths = {len(messages) - 1, len(messages)}
        if messages and messages[0]["role"] == "system":
            lengths.add(1)
        found: set[int] = set()
        for length in lengths - {0}:
            try:
                part = self._render(messages[:length], {**names, "add_generation_prompt": False})
            except RequestError:
                continue
            if part and text.startswith(part):
                found.add(len(part))
        return sorted(found)


def _may_go_on(message: Message) -> bool:
    """Whether an answer can go on from this message."""
    return message["role"] == "assistant" and not message.get("tool_calls") and isinstance(message["content"], str)


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's text for training; here it renders its content."""

    tags = {"generation"}  # noqa: RUF012 -- Jinja's own way to declare it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(value, Iterator):  # of Jinja's filters, such as map
        value = list(cast("Iterator[Any]", value))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    return environment


_ENVIRONMENT = _environment()
_GLOBALS = {**_ENVIRONMENT.globals, "raise_exception": _raise_exception, "strftime_now": _strftime_now}


def _line_in_template(error: BaseException) -> int | None:
    """The template's line at which an exception arose: Jinja rewrites tracebacks to point into the template."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _reason(error: Exception) -> str:
    return "it takes too much memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__


def template_fault(reason: str, line: int | None = None) -> RequestError:
    """The error of a chat template that fails, at this line of it."""
    where = f" at line {line}" if line else ""
    return RequestError(
        f"the model's chat template failed{where}: {reason}", code="chat_template_error", param="messages"
    )
