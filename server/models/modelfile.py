"""The Modelfile: what a model is made from and how it behaves, in a few lines. Read and written without any I/O.

The keywords are Ollama's and mean the same, except that TEMPLATE is Jinja. QUANTIZE, DRAFT and
PROJECTOR are brim's own.
docs/modelfile.md is the reference.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Struct

from server.errors import BrimError
from server.models.parameters import Parameters, UnknownParameterError, canonical_name, parse_parameter

Role = Literal["system", "user", "assistant"]

KEYWORDS = (
    "FROM", "QUANTIZE", "ADAPTER", "DRAFT", "PROJECTOR", "PARAMETER", "SYSTEM", "TEMPLATE", "MESSAGE", "LICENSE",
)  # fmt: skip
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
REPEATABLE = frozenset({"PARAMETER", "MESSAGE", "ADAPTER", "LICENSE"})
NOT_IN_BRIM = {
    "RENDERER": "brim renders chats with the model's own Jinja template",
    "PARSER": "brim detects tool calls and reasoning from the template",
    "REQUIRES": "it names a version of Ollama",
}

_STATEMENT = re.compile(r"\s*(\S+)\s*(.*)", re.DOTALL)
_WORD = re.compile(r"(\S+)\s*(.*)", re.DOTALL)
_OPENING = re.compile(r'"{3,}')
_ADAPTER = re.compile(r'(?:"(?P<quoted>[^"]+)"|(?P<bare>[^\s"]+))(?:\s+(?P<scale>\S+))?')
_FILE = re.compile(r'"?(?:[/~]|\.{1,2}/).*|.*\.gguf"?', re.IGNORECASE)
_GO_ACTION = re.compile(r"\{\{-?\s*(?:\.|(?:if|range|with|else if)\s|(?:end|else)\s*-?\}\}|\$)")


class ModelfileError(BrimError):
    """A Modelfile that cannot be read. Its text names the file, the line and what to do."""


class Message(Struct, frozen=True):
    """One message of the conversation that every chat with the model begins with."""

    role: Role
    text: str


class Adapter(Struct, frozen=True):
    """A LoRA adapter: where it lies, and how strongly it is applied."""

    path: str
    scale: float = 1.0


class Modelfile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A Modelfile's content. None means: not said, so what FROM brings along holds; an empty text means: none.

    `source` is FROM's argument as it was written, and `quantize` a quantization type's name in upper case.
    """

    source: str
    quantize: str | None = None
    parameters: Parameters = Parameters()
    system: str | None = None
    template: str | None = None
    messages: tuple[Message, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    draft: str | None = None
    projector: str | None = None
    licenses: tuple[str, ...] = ()


def parse(text: str, file: str = "Modelfile") -> Modelfile:
    """Read a Modelfile.

    Args:
        text: its content.
        file: what error messages call it.

    Raises:
        ModelfileError: a line cannot be understood.
    """
    return _Parser(text, file).parse()


def serialise(modelfile: Modelfile) -> str:
    """Write a Modelfile, such that `parse(serialise(x)) == x`."""
    lines = [f"FROM {_written(modelfile.source)}"]
    if modelfile.quantize is not None:
        lines.append(f"QUANTIZE {modelfile.quantize}")
    for adapter in modelfile.adapters:
        lines.append(f'ADAPTER "{adapter.path}" {adapter.scale!r}')
    if modelfile.draft is not None:
        lines.append(f"DRAFT {_written(modelfile.draft)}")
    if modelfile.projector is not None:
        lines.append(f"PROJECTOR {_written(modelfile.projector)}")
    for name, value in modelfile.parameters.items():
        values = value if isinstance(value, tuple) else (value,)
        lines.extend(f"PARAMETER {name} {_written(str(one))}" for one in values)
    if modelfile.system is not None:
        lines.append(f"SYSTEM {_written(modelfile.system)}")
    if modelfile.template is not None:
        lines.append(f"TEMPLATE {_written(modelfile.template)}")
    lines.extend(f"MESSAGE {message.role} {_written(message.text)}" for message in modelfile.messages)
    lines.extend(f"LICENSE {_written(text)}" for text in modelfile.licenses)
    return "\n".join(lines) + "\n"


def _written(text: str) -> str:
    """A text in the plainest form that reads back as itself: bare, in quotes, or in a block of its own."""
    if text == "":
        return '""'
    if text == text.strip() and "\n" not in text and not text.startswith('"'):
        return text
    longest = max((len(run) for run in re.findall(r'"+', text)), default=0)
    quotes = '"' * (max(3, longest + 1) if longest != 5 else 7)  # six on a line are an empty text
    return f"{quotes}\n{text}\n{quotes}"


def is_go_template(text: str) -> bool:
    """Whether a template is one of Ollama's, in Go's language, and not Jinja."""
    return bool(_GO_ACTION.search(text))


class _Parser:
    """Walks over the lines; `line` is the number of the statement's first one, which error messages name."""

    def __init__(self, text: str, file: str) -> None:
        self.lines = text.split("\n")
        self.file = file
        self.next = 0
        self.line = 0
        self.seen: dict[str, int] = {}
        self.values: dict[str, Any] = {}
        self.parameters: dict[str, Any] = {}

    def parse(self) -> Modelfile:
        while self.next < len(self.lines):
            line = self.lines[self.next]
            self.next += 1
            self.line = self.next
            statement = _STATEMENT.fullmatch(line)
            if statement and not statement[1].startswith("#"):
                argument = statement[2].strip()
                self._statement(self._keyword(statement[1], argument), argument)
        if "source" not in self.values:
            raise ModelfileError(
                f"{self.file} has no FROM line: let it name a checkpoint folder, a GGUF file or a model in the store"
            )
        return Modelfile(**self.values, parameters=msgspec.convert(self.parameters, Parameters))

    def _keyword(self, word: str, argument: str) -> str:
        keyword = word.upper()
        if keyword == "FROM" and keyword in self.seen and _FILE.fullmatch(argument):
            keyword = "PROJECTOR"  # as Ollama writes it
        if keyword in NOT_IN_BRIM:
            self._fail(f"{keyword} has no meaning here, since {NOT_IN_BRIM[keyword]}; delete the line")
        if keyword not in KEYWORDS:
            near = difflib.get_close_matches(keyword, KEYWORDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"a line begins with one of {', '.join(KEYWORDS)}"
            self._fail(f"{word!r} is no Modelfile keyword; {hint}")
        if keyword in self.seen and keyword not in REPEATABLE:
            self._fail(f"{keyword} stands in line {self.seen[keyword]} already; keep one of the two")
        self.seen[keyword] = self.line
        return keyword

    def _statement(self, keyword: str, argument: str) -> None:
        match keyword:
            case "PARAMETER":
                self._parameter(argument)
            case "MESSAGE":
                self._add("messages", self._message(argument))
            case "ADAPTER":
                self._add("adapters", self._adapter(argument))
            case "LICENSE":
                self._add("licenses", self._text("LICENSE", argument))
            case "FROM":
                self.values["source"] = self._path("FROM", argument)
            case "DRAFT":
                self.values["draft"] = self._path("DRAFT", argument)
            case "PROJECTOR":
                self.values["projector"] = self._path("PROJECTOR", argument)
            case "QUANTIZE":
                self.values["quantize"] = self._quantization(argument)
            case "TEMPLATE":
                self.values["template"] = self._template(argument)
            case _:
                self.values["system"] = self._text("SYSTEM", argument)

    def _add(self, field: str, item: object) -> None:
        self.values[field] = (*self.values.get(field, ()), item)

    def _parameter(self, argument: str) -> None:
        word = _WORD.fullmatch(argument)
        if not word or not word[2]:
            self._fail("PARAMETER takes a name and a value, as in `PARAMETER temperature 0.7`")
        text = self._text("PARAMETER", word[2])
        try:
            name = canonical_name(word[1])
            value = parse_parameter(name, text)
        except UnknownParameterError as error:
            self._fail(str(error))
        except ValueError as error:
            self._fail(f"PARAMETER {word[1]} takes {error}, not {text!r}")
        if name == "stop":
            self.parameters["stop"] = (*self.parameters.get("stop", ()), value)
        elif name in self.parameters:
            self._fail(f"PARAMETER {name} is set already, to {self.parameters[name]}; keep one of the two lines")
        else:
            self.parameters[name] = value

    def _message(self, argument: str) -> Message:
        word = _WORD.fullmatch(argument)
        role = ROLES.get(word[1].lower()) if word else None
        if not word or not role:
            self._fail(f"MESSAGE takes one of the roles {', '.join(ROLES)} and a text, as in `MESSAGE user Hello`")
        return Message(role, self._text(f"MESSAGE {role}", word[2]))

    def _adapter(self, argument: str) -> Adapter:
        parts = _ADAPTER.fullmatch(argument)
        if not parts:
            self._fail("ADAPTER takes a GGUF file, in quotes if its path has spaces, and a scale if it is not 1")
        try:
            scale = float(parts["scale"] or 1.0)
        except ValueError:
            scale = math.nan
        if not math.isfinite(scale):
            self._fail(f"the scale of ADAPTER is a number, not {parts['scale']!r}; put a path with spaces in quotes")
        return Adapter(parts["quoted"] or parts["bare"], scale)

    def _path(self, keyword: str, argument: str) -> str:
        path = self._text(keyword, argument)
        if not path.strip() or "\n" in path:
            self._fail(f"{keyword} takes one folder, file or model name")
        return path

    def _quantization(self, argument: str) -> str:
        from converter.errors import ConversionError
        from converter.quantization import parse_quantization

        try:
            return parse_quantization(self._text("QUANTIZE", argument)).name
        except ConversionError as error:
            self._fail(str(error).rstrip("."))

    def _template(self, argument: str) -> str:
        template = self._text("TEMPLATE", argument)
        if is_go_template(template):
            self._fail(
                "TEMPLATE is a Go template as Ollama has them, and brim takes Jinja; "
                "delete it to use the model's own template, or write it in Jinja"
            )
        return template

    def _text(self, keyword: str, argument: str) -> str:
        """The text that `argument` begins: the rest of the line, quoted or not, or a block in three quotes or more."""
        if not argument:
            self._fail(f'{keyword} has nothing after it; write "" if nothing is meant')
        if argument == '""""""':
            return ""
        if opening := _OPENING.match(argument):
            return self._block(keyword, opening[0])
        if not argument.startswith('"'):
            return argument
        if len(argument) < 2 or not argument.endswith('"'):
            self._fail(f'the quoted text of {keyword} does not end with the line; put a longer text in """ """')
        return argument[1:-1]

    def _block(self, keyword: str, quotes: str) -> str:
        """The text from the opening quotes to as many closing ones; a line break next to either is not part of it."""
        first = self.line - 1
        rest = "\n".join(self.lines[first:])
        start = rest.index(quotes) + len(quotes)
        closing = re.compile(f"{quotes}+").search(rest, start)
        if not closing:
            self._fail(f"the text of {keyword} is opened with {quotes} and never closed with {quotes}")
        end = closing.end() - len(quotes)
        after = rest[closing.end() :].split("\n", 1)[0].strip()
        if after:
            self._fail(f"after the text of {keyword} and its closing {quotes} stands {after!r}; delete it")
        self.next = first + rest.count("\n", 0, end) + 1
        text = re.sub(r"\A[ \t]*\n", "", rest[start:end], count=1)
        return text.removesuffix("\n")

    def _fail(self, what: str) -> NoReturn:
        raise ModelfileError(f"{self.file}, line {self.line}: {what}")
