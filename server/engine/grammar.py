"""Compiling the grammars that outputs are held to, by llguidance, off the decoding thread.

Every kind of grammar becomes one in Lark's notation, where nothing is forced: any token whose bytes fit may come, so
that the model spells as it likes.
Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark
from msgspec import structs

from server.engine.beginning import Awaited
from server.engine.constraint import Constraint, FormOrCalls
from server.engine.json_schema import MAX_BYTES, SchemaError, parse_schema, prepare_schema
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.constraint import OutputConstraint, Vocabulary
    from server.engine.request import Grammar, Lead

KEPT = 64
"""Compiled grammars that are kept for requests to come."""
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'
_INLINE_SCHEMA = re.compile(r"%(lenient_)?json\s*(?=[{tf])")
"""A JSON Schema in Lark, enforced fully, or leniently: as far as it can be."""
_POSITION = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_PARAMS = {
    "json_schema": "response_format",
    "json_object": "response_format",
    "regex": "guided_regex",
    "choice": "guided_choice",
}


class Grammars:
    """Compiles grammars for one vocabulary; to be used from one thread.

    Args:
        vocab: the model's; read as a whole when the first grammar comes.
        kept: how many compiled grammars are kept.
    """

    def __init__(self, vocab: Vocabulary, kept: int = KEPT) -> None:
        self._vocab = vocab
        self._kept = kept
        self._compiled: OrderedDict[tuple[str, str, Lead | None], LLMatcher] = OrderedDict()
        self._tokenizer: LLTokenizer | None = None

    def constraint(self, grammar: Grammar, visible: frozenset[int], *, ignore_eos: bool) -> OutputConstraint:
        """A constraint at its beginning, for one sequence.

        Args:
            visible: special tokens whose text counts as output where a trigger is looked for.
            ignore_eos: whether to go on where the grammar allows the end but not only that.

        Raises:
            RequestError: the grammar does not parse, or asks for what cannot be enforced.
        """
        form = self._one(grammar, visible, ignore_eos=ignore_eos)
        if not grammar.calls:
            return form
        first, begun = (self._one(one, visible, ignore_eos=ignore_eos) for one in grammar.calls)
        return FormOrCalls(form, first, begun)

    def _one(self, grammar: Grammar, visible: frozenset[int], *, ignore_eos: bool) -> Constraint:
        matcher = self._matcher(grammar).deep_copy()
        assert self._tokenizer
        awaited = Awaited.of(grammar.begins) if grammar.begins else None
        return Constraint(matcher, self._tokenizer, self._vocab, awaited, visible, ignore_eos=ignore_eos)

    def _matcher(self, grammar: Grammar) -> LLMatcher:
        key = (grammar.kind, grammar.source, grammar.lead)
        matcher = self._compiled.pop(key, None) or self._compile(grammar)
        self._compiled[key] = matcher
        if len(self._compiled) > self._kept:
            self._compiled.popitem(last=False)
        return matcher

    def _compile(self, grammar: Grammar) -> LLMatcher:
        param = _PARAMS.get(grammar.kind, "grammar")
        if len(grammar.source) > MAX_BYTES:
            text = f"the grammar has {len(grammar.source)} characters; {MAX_BYTES} are allowed"
            raise RequestError(text, code="invalid_grammar", param=param)
        if grammar.lead and grammar.kind in ("lark", "gbnf"):
            self._matcher(structs.replace(grammar, lead=None))  # alone, it tells the places of its faults
        try:
            source = to_lark(grammar) + _OPTIONS
        except SchemaError as error:
            text = f"this JSON Schema cannot be enforced: {error}"
            raise RequestError(text, code="invalid_json_schema", param=param) from error
        except GrammarError as error:
            text = f"the grammar cannot be read: {error}"
            raise RequestError(text, code="invalid_grammar", param=param) from error
        if self._tokenizer is None:
            self._tokenizer = make_tokenizer(self._vocab)
        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(source), log_level=0, limits=limits)
        fault = matcher.get_error() or "; ".join(matcher.get_grammar_warnings())
        if fault:
            schema = "JSON schema" in fault
            text = _schema_fault(fault) if schema else f"the grammar cannot be used: {_fault(fault, grammar)}"
            code = "invalid_json_schema" if schema else "invalid_grammar"
            raise RequestError(text, code=code, param=param)
        return matcher


class GrammarError(Exception):
    """A grammar whose text cannot be read. The text says where and why."""


def to_lark(grammar: Grammar) -> str:
    """A grammar in llguidance's variant of Lark, whose start rule is `start`.

    Raises:
        SchemaError: a JSON Schema in it cannot be enforced.
        GrammarError: its text cannot be read.
    """
    if grammar.lead:
        own = to_lark(structs.replace(grammar, lead=None))
        return f"start: {grammar.lead.expression} own\n{grammar.lead.rules}own: %lark {{\n{own}\n}}\n"
    source = grammar.source
    match grammar.kind:
        case "json_schema":
            return f"start: %json {json.dumps(parse_schema(source))}"
        case "json_object":
            return f"start: %json {json.dumps(prepare_schema({'type': 'object'}))}"
        case "regex":
            return json.loads(LLMatcher.grammar_from_regex(source))["grammars"][0]["lark_grammar"]
        case "choice":
            return f"start: CHOICE\nCHOICE: {' | '.join(json.dumps(choice) for choice in _choices(source))}"
        case "lark":
            return _with_prepared_schemas(source)
        case "gbnf":
            try:
                return gbnf_to_lark(source)
            except GbnfToLarkError as error:
                raise GrammarError(str(error)) from error
            except Exception as error:  # what else its parser raises is a plain Exception
                raise GrammarError(f"{error}") from error


def _choices(source: str) -> list[str]:
    try:
        found: Any = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the choices are no JSON array: {error}") from error
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):  # pyright: ignore[reportUnknownVariableType]
        raise GrammarError("the choices must be a JSON array of strings, not empty")
    return found  # pyright: ignore[reportUnknownVariableType]


def _with_prepared_schemas(lark: str) -> str:
    """A Lark grammar with each inline JSON Schema in the form that is enforced."""
    parts: list[str] = []
    done = 0
    for found in _INLINE_SCHEMA.finditer(lark):
        if found.start() < done:
            continue
        try:
            schema, end = json.JSONDecoder().raw_decode(lark, found.end())
        except (ValueError, RecursionError) as error:
            line = lark.count("\n", 0, found.end()) + 1
            raise GrammarError(f"line {line}: what follows %json is no JSON: {error}") from error
        prepared = prepare_schema(schema, lenient=found[1] is not None)
        parts += [lark[done : found.start()], "%json ", json.dumps(prepared)]
        done = end
    return "".join([*parts, lark[done:]])


def _schema_fault(fault: str) -> str:
    """A sentence on a schema that llguidance refuses, with the keyword at fault."""
    lines = [line.strip() for line in fault.splitlines()]
    reason = lines[0].rpartition("JSON schema: ")[2]
    if reason.startswith("regex parse error"):
        reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), reason)
        reason = f"'pattern' is no regular expression that can be enforced: {reason} ({lines[1]})"
    elif "lookaround" in reason:
        reason = f"'pattern' is no regular expression that can be enforced: {reason}"
    elif reason.startswith(("Pointer", "Resource", "Anchor")):
        reason = f"'$ref' must point to a place in the schema itself: {reason}"
    elif "oneOf" in reason:
        reason = "'oneOf' is supported where types or a required constant property tell its options apart; use 'anyOf'"
    elif "min/maxProperties" in reason:
        reason = "'minProperties' and 'maxProperties' need all names of 'properties' in 'required'"
    elif "patternProperty" in reason:
        reason = f"'patternProperties' must not overlap: {reason}"
    return f"this JSON Schema cannot be enforced: {reason}"


def _fault(fault: str, grammar: Grammar) -> str:
    """What llguidance says of a grammar in one line; the place only where it is the caller's own text."""
    lines = [line.strip() for line in fault.splitlines()]
    position = _POSITION.match(lines[0])
    reason = lines[0][position.end() :] if position else lines[0]
    causes = [line.removeprefix("error: ") for line in lines[1:] if line.startswith("error: ")]
    place = f"line {position[1]}, column {position[2]}: " if position and grammar.kind == "lark" else ""
    return place + ": ".join([reason, *causes])


class _Pieces:
    """A vocabulary as llguidance reads one: any object with these attributes."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, pieces: Sequence[bytes], special: Sequence[int], end: int) -> None:
        self.tokens = pieces
        self.special_token_ids = special
        self.eos_token_id = end
        self._of_byte = {piece[0]: token for token, piece in enumerate(pieces) if len(piece) == 1}

    def __call__(self, text: str) -> list[int]:
        """Some tokens that spell a text; asked for only where a text must be consumed that no one token holds."""
        return [self._of_byte[byte] for byte in text.encode() if byte in self._of_byte]


def make_tokenizer(vocab: Vocabulary) -> LLTokenizer:
    """The vocabulary for llguidance: control tokens match only as tokens, all others also by their bytes.

    Raises:
        RequestError: the vocabulary has no token that ends an answer, so that no constraint could ever end.
    """
    if not vocab.end_tokens:
        raise RequestError("this model has no end token, so its output cannot be held to a grammar", param="grammar")
    ends = sorted(vocab.end_tokens)
    special = sorted({*vocab.control_tokens, *ends})
    pieces = vocab.pieces()
    wrapper: Any = _Pieces(pieces, special, ends[0])
    return LLTokenizer(wrapper, n_vocab=len(pieces), eos_token=ends)
