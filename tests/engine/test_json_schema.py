"""Every schema of the corpus is either refused by the name of its keyword or yields valid instances only.

Each line of tests/schemas/*.jsonl is a schema; with `refused`, what its refusal must name.
"""

# pyright: basic, reportMissingParameterType=true
# (jsonschema's validators have no types)

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from jsonschema import validators

from server.engine.grammar import Grammars
from server.engine.json_schema import MAX_DEPTH, SchemaError, parse_schema
from server.engine.request import Grammar, Sampling
from server.engine.sampler import Sampler
from server.errors import RequestError
from tests.engine.vocabulary import ByteVocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.engine.constraint import OutputConstraint

CORPUS = sorted((Path(__file__).parents[1] / "schemas").glob("*.jsonl"))
VOCABULARY = ByteVocabulary()
GRAMMARS = Grammars(VOCABULARY, kept=8)
CLOSING = np.array([t for t, piece in enumerate(VOCABULARY.pieces()) if piece[:1] in (b'"', b"}", b"]")], np.intp)
BRIEF = 60
LONGEST = 600
WALKS = 6


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def walk(constraint: OutputConstraint, seed: int) -> str | None:
    """What a model of random weights says at temperature 1; None where it does not come to an end.

    After some tokens those that close something become likelier, so that most walks end.
    """
    random = np.random.default_rng(seed)
    sampler = Sampler(Sampling(temperature=1.0, seed=seed))
    said = b""
    for step in range(LONGEST):
        row = random.normal(0, 2, VOCABULARY.size).astype(np.float32)
        if step > BRIEF:
            row[CLOSING] += 8
            row[sorted(VOCABULARY.end_tokens)] += 12
        token = sampler.choose(row, constraint)
        if token in VOCABULARY.end_tokens:
            return said.decode()
        constraint.take(token)
        said += VOCABULARY.piece(token)
        if constraint.complete:
            return said.decode()
    return None


def exact(number: str) -> Decimal:
    """A number with a fraction or exponent; where even a Decimal cannot hold it, infinite."""
    try:
        return Decimal(number)
    except InvalidOperation:
        return Decimal("-Infinity" if number.startswith("-") else "Infinity")


def is_integer(_: object, value: object) -> bool:
    return (
        not isinstance(value, bool)
        and isinstance(value, (int, Decimal))
        and value == Decimal(value).to_integral_value()
    )


def pattern_as_in_ecmascript(
    _: object, pattern: str, value: object, __: object
) -> Iterator[jsonschema.ValidationError]:
    """In JSON Schema's regular expressions, unlike in Python's, \\d and \\w mean ASCII and $ is the very end."""
    if isinstance(value, str) and not re.search(_as_python(pattern), value, re.ASCII):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def pattern_properties(validator: Any, patterns: dict[str, Any], value: object, _: object) -> Iterator[Any]:
    if isinstance(value, dict):
        for pattern, schema in patterns.items():
            for name, inner in value.items():
                if re.search(_as_python(pattern), name, re.ASCII):
                    yield from validator.descend(inner, schema)


def _as_python(pattern: str) -> str:
    return re.sub(r"(?<!\\)\$", r"\\Z", pattern.replace("[^]", r"[\s\S]"))


def validator(schema: Any) -> Any:
    """jsonschema's validator for the schema's draft, with exact decimals, formats asserted and ECMA's patterns."""
    if isinstance(schema, bool):
        return jsonschema.Draft202012Validator(schema)
    base: Any = validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    types = base.TYPE_CHECKER.redefine("integer", is_integer)
    rules = {"pattern": pattern_as_in_ecmascript, "patternProperties": pattern_properties}
    validator_class: Any = validators.extend(base, rules, type_checker=types)
    schema = json.loads(json.dumps(schema), parse_float=Decimal)
    return validator_class(schema, format_checker=base.FORMAT_CHECKER)


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # Python's re, of sets that it may read otherwise one day
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_is_accepted_yields_valid_instances_only(path: Path) -> None:
    ended = 0
    accepted = [line["schema"] for line in lines(path) if "refused" not in line]
    for schema in accepted:
        check = validator(schema)
        for seed in range(WALKS):
            constraint = GRAMMARS.constraint(Grammar("json_schema", json.dumps(schema)), frozenset(), ignore_eos=False)
            said = walk(constraint, seed)
            if said is None:
                continue
            ended += 1
            with localcontext(prec=LONGEST):
                fault = next(check.iter_errors(json.loads(said, parse_float=exact)), None)
            assert fault is None, (schema, said, str(fault))
    assert ended >= 0.9 * WALKS * len(accepted)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_is_refused_is_named(path: Path) -> None:
    for line in lines(path):
        if "refused" in line:
            grammar = Grammar("json_schema", json.dumps(line["schema"]))
            with pytest.raises(RequestError) as refused:
                GRAMMARS.constraint(grammar, frozenset(), ignore_eos=False)
            assert line["refused"] in refused.value.message, (line["schema"], refused.value.message)
            assert refused.value.status == 400


def test_the_corpus_is_a_few_hundred_schemas() -> None:
    found = [line for path in CORPUS for line in lines(path)]
    assert len(found) > 300
    assert sum("refused" in line for line in found) > 80


def test_size_and_depth_are_bounded() -> None:
    deep: Any = {"type": "integer"}
    for _ in range(MAX_DEPTH):
        deep = {"type": "array", "items": deep}
    with pytest.raises(SchemaError, match="nested deeper"):
        parse_schema(json.dumps(deep))
    with pytest.raises(SchemaError, match="nested deeper"):
        parse_schema("[" * 100_000)
    with pytest.raises(SchemaError, match="characters"):
        parse_schema(json.dumps({"description": "x" * 300_000}))
    with pytest.raises(SchemaError, match="subschemas"):
        parse_schema(json.dumps({"anyOf": [{}] * 10_000}))
    with pytest.raises(SchemaError, match="NaN"):
        parse_schema('{"minimum": NaN}')


def leniently(schema: Any) -> OutputConstraint:
    grammar = Grammar("lark", f"start: %lenient_json {json.dumps(schema)}")
    return GRAMMARS.constraint(grammar, frozenset(), ignore_eos=False)


def allows(constraint: OutputConstraint, text: str) -> bool:
    for byte in text.encode():
        token = VOCABULARY.pieces().index(bytes([byte]))
        if not constraint.admits(token):
            return False
        constraint.take(token)
    return constraint.admits(min(VOCABULARY.end_tokens))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_leniently_all_is_allowed_that_is_else(path: Path) -> None:
    for schema in [line["schema"] for line in lines(path) if "refused" not in line]:
        grammar = Grammar("json_schema", json.dumps(schema))
        said = walk(GRAMMARS.constraint(grammar, frozenset(), ignore_eos=False), 0)
        if said is not None and isinstance(schema, dict):
            assert allows(leniently(schema), said), (schema, said)


@pytest.mark.parametrize(
    ("schema", "allowed", "refused"),
    [
        ({"type": "integer", "not": {"const": 1}}, "1", '"a"'),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1, 1]", '["a"]'),
        ({"type": "object", "propertyNames": {"pattern": "^a"}, "additionalProperties": {"const": 1}}, '{"b": 1}', "2"),
        ({"type": "object", "patternProperties": {"a": {}, "b": {}}, "additionalProperties": False}, '{"a": 1}', "2"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, "3", None),
        ({"oneOf": [{"$ref": "#/x-a"}, {"type": "null"}], "x-a": {"type": 5}}, "null", None),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "minProperties": 1}, '{"a": 1}', '{"a": ""}'),
        ({"type": "string", "pattern": "^(?!a)"}, '"b"', "1"),
        ({"type": "string", "format": "iri"}, '"b"', "1"),
        ({"properties": {"a": {"$ref": "https://example.com/a"}}, "type": "object"}, '{"a": 1}', "1"),
        ({"$ref": "#/components/A", "components": {"A": {}}}, "1", None),
        ({"type": "any", "exclusiveMinimum": True}, "1", None),
    ],
)
def test_leniently_what_cannot_be_enforced_is_left_out(schema: Any, allowed: str, refused: str | None) -> None:
    with pytest.raises(RequestError):
        GRAMMARS.constraint(Grammar("json_schema", json.dumps(schema)), frozenset(), ignore_eos=False)
    assert allows(leniently(schema), allowed)
    assert refused is None or not allows(leniently(schema), refused)


def test_leniently_too_bounds_hold() -> None:
    deep: Any = {"type": "integer"}
    for _ in range(MAX_DEPTH):
        deep = {"type": "array", "items": deep}
    with pytest.raises(RequestError, match="nested deeper"):
        leniently(deep)


def test_white_space_cannot_go_on_for_ever() -> None:
    grammar = Grammar("json_schema", '{"type": "array", "items": {"const": 1}}')
    constraint = GRAMMARS.constraint(grammar, frozenset(), ignore_eos=False)
    constraint.take(VOCABULARY.token("["))
    constraint.take(VOCABULARY.token("\n"))
    for _ in range(20):
        assert constraint.admits(VOCABULARY.token(" "))
        constraint.take(VOCABULARY.token(" "))
    assert not constraint.admits(VOCABULARY.token(" "))
