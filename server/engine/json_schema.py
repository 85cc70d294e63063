"""JSON Schemas as llguidance can enforce them: what it cannot is refused by name, and nothing is left out in silence.

llguidance ignores keywords that it does not know and reads some by their position among the others. So every schema is
checked here first and brought into a form in which what it enforces is what draft 2020-12 (or the older form used)
means. Only annotations are dropped, and where a caller says so, what cannot be enforced.
Source: https://json-schema.org/draft/2020-12/json-schema-validation, docs/json_schema.md of llguidance.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn, cast

from server.engine.patterns import PatternError, for_llguidance, is_regular
from server.engine.schema_values import ANNOTATING_FORMATS, CHECKS, Json, inner_values, words

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 18
MAX_DEPTH = 64
MAX_SUBSCHEMAS = 8192
_REF_HOPS = 16
_WHITE_SPACE = "( |\\n[ \\t]{0,20})"
"""What may stand between JSON's tokens: bounded, for weak models like to go on with white space for ever."""

ANNOTATIONS = words(
    "$comment $schema contentEncoding contentMediaType contentSchema default deprecated description discriminator "
    "example examples id readOnly title writeOnly"
)

_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = f"({_YEAR}-(0[13-9]|1[0-2])-[0-9]{{2}}|{_YEAR}-02-([01][0-9]|2[0-8])|{_LEAP_YEAR}-02-29)"
_NO_LEAP_SECOND = "[0-9]{2}:[0-9]{2}:[0-5]"
_NARROWED = {"date": f"^{_DATE}$", "date-time": f"^{_DATE}[tT]{_NO_LEAP_SECOND}", "time": f"^{_NO_LEAP_SECOND}"}
"""llguidance's dates know no leap years, and leap seconds exist only in few minutes: most readers take neither."""


class SchemaError(Exception):
    """A schema that cannot be enforced. Its text is a clause such as "'not' at '#/items' is not supported"."""


def parse_schema(source: str) -> Json:
    """Read a JSON Schema's text and bring it into the form that llguidance enforces fully.

    Raises:
        SchemaError: the text is no JSON, too large or too deep, or has a keyword that cannot be enforced.
    """
    if len(source) > MAX_BYTES:
        raise SchemaError(f"the schema has {len(source)} characters; {MAX_BYTES} are allowed")
    try:
        schema = json.loads(source, parse_constant=_no_constant)
    except ValueError as error:
        raise SchemaError(f"the schema is no JSON: {error}") from error
    except RecursionError as error:
        raise SchemaError(f"the schema is nested deeper than {MAX_DEPTH} levels") from error
    return prepare_schema(schema)


def prepare_schema(schema: Json, *, lenient: bool = False) -> Json:
    """Bring a JSON Schema into the form that llguidance enforces fully.

    Args:
        schema: the schema.
        lenient: leave out what cannot be enforced, so that all that the schema allows is allowed, and perhaps more.

    Raises:
        SchemaError: there is no such form; a lenient one there is but for schemas too deep, or that allow nothing.
    """
    if _depth(schema) > MAX_DEPTH:
        raise SchemaError(f"the schema is nested deeper than {MAX_DEPTH} levels")
    prepared = _Preparation(schema, lenient=lenient).schema(schema, "#")
    if prepared is False:
        raise SchemaError("the schema 'false' allows nothing")
    whole = cast("dict[str, Json]", {} if prepared is True else prepared)
    return whole | {"x-guidance": {"whitespace_pattern": _WHITE_SPACE}}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _depth(value: Json) -> int:
    """How deep lists and objects are nested, without recursion; counts no further than one more than is allowed."""
    level: list[Json] = [value]
    for depth in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in inner_values(outer)]
        if not level:
            return depth
    return MAX_DEPTH + 1


class _Preparation:
    """One pass over a schema.

    Args:
        root: the whole schema, in which references are looked up.
        lenient: whether to leave out what cannot be enforced.
    """

    def __init__(self, root: Json, *, lenient: bool) -> None:
        self._root = root
        self._lenient = lenient
        self._subschemas = 0

    def schema(self, schema: Json, path: str) -> Json:
        """A subschema's enforceable form.

        Constraints come before applicators, so that `additionalProperties` sees the `properties` beside it wherever it
        was written.
        """
        self._subschemas += 1
        if self._subschemas > MAX_SUBSCHEMAS:
            raise SchemaError(f"the schema has more than {MAX_SUBSCHEMAS} subschemas")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise SchemaError(f"the schema at '{path}' must be an object, true or false")
        found = cast("dict[str, Json]", schema)
        constraints: dict[str, Json] = {}
        applicators: dict[str, Json] = {}
        for keyword, value in found.items():
            if keyword in ANNOTATIONS or (keyword.startswith("x-") and keyword != "x-guidance"):
                continue
            if _without_effect(keyword, value, found):
                continue
            into = applicators if keyword in _APPLICATORS else constraints
            try:
                into[keyword] = self._value(keyword, value, path)
            except SchemaError:
                if not self._lenient:
                    raise
        if self._lenient:
            self._widen(constraints, applicators, found)
        self._check_together(constraints, path)
        _narrow(constraints, applicators)
        one_of = "oneOf" in applicators and "anyOf" not in applicators
        if one_of and (self._lenient or self._exclusive(found["oneOf"])):
            applicators["anyOf"] = applicators.pop("oneOf")
        return constraints | applicators

    def _widen(self, constraints: dict[str, Json], applicators: dict[str, Json], given: dict[str, Json]) -> None:
        """Leave out what only llguidance would refuse, and what would allow less without a keyword left out."""
        if len(constraints.get("patternProperties", ())) > 1:
            del constraints["patternProperties"]  # they might overlap
        for keyword, dependent in _DEPENDENT.items():
            if keyword in given and keyword not in constraints:
                constraints.pop(dependent, None)
        for limit in ("minProperties", "maxProperties"):
            constraints.pop(limit, None)
        for limit, exclusive in _LIMITS:
            if limit not in constraints and constraints.get(exclusive) is True:
                del constraints[exclusive]
        if "anyOf" in applicators:
            applicators.pop("oneOf", None)
        reference: str = applicators.get("$ref", "#")
        if reference != "#" and (self._at(reference) is None or reference.split("/")[1] not in _HOLDERS):
            del applicators["$ref"]

    def _value(self, keyword: str, value: Json, path: str) -> Json:
        """A keyword's value: checked, and prepared where it holds schemas."""
        here = f"{path}/{keyword}"
        if keyword in _SCHEMA:
            return self.schema(value, here)
        if keyword in _SCHEMAS or (keyword == "items" and isinstance(value, list)):
            if not isinstance(value, list) or not (value or keyword in _MAY_BE_EMPTY):
                raise SchemaError(f"'{keyword}' at '{path}' must be a list of schemas, not empty")
            return [self.schema(one, f"{here}/{i}") for i, one in enumerate(cast("list[Json]", value))]
        if keyword == "items":
            return self.schema(value, here)
        if keyword in _NAMED_SCHEMAS:
            if not isinstance(value, dict):
                raise SchemaError(f"'{keyword}' at '{path}' must be an object of schemas")
            named = cast("dict[str, Json]", value)
            prepared = {name: self.schema(one, f"{here}/{name}") for name, one in named.items()}
            if keyword != "patternProperties":
                return prepared
            return {self._pattern(keyword, name, path): one for name, one in prepared.items()}
        check = CHECKS.get(keyword)
        if check is None:
            raise SchemaError(f"'{keyword}' at '{path}' is not supported")
        if (wanted := check(value)) is not None:
            raise SchemaError(f"'{keyword}' at '{path}' {wanted}")
        return self._pattern(keyword, value, path) if keyword == "pattern" else value

    def _pattern(self, keyword: str, pattern: str, path: str) -> str:
        if self._lenient and not is_regular(pattern):
            raise SchemaError(f"'{keyword}' at '{path}' looks around or refers back")
        try:
            return for_llguidance(pattern)
        except PatternError as error:
            raise SchemaError(f"'{keyword}' at '{path}' cannot be enforced: {error}") from error

    def _check_together(self, found: dict[str, Json], path: str) -> None:
        """What a keyword may be depends on others for some."""
        for limit, exclusive in _LIMITS:
            if isinstance(found.get(exclusive), bool) and found.pop(exclusive):  # as in draft 4
                if limit not in found:
                    raise SchemaError(f"'{exclusive}' at '{path}' is true without '{limit}'")
                found[exclusive] = found.pop(limit)
        least = found.get("minProperties", 0)
        if least > max(1, len(set(found.get("required", ()))) + 1):
            # names of additional properties may repeat in the output, and a reader keeps only one of them
            raise SchemaError(
                f"'minProperties' at '{path}' is supported up to one more than there are names in 'required'"
            )

    # oneOf

    def _exclusive(self, options: Json) -> bool:
        """Whether no value can satisfy two of the options, as far as types and tags show: `oneOf` is `anyOf` then."""
        resolved = [self._resolved(option) for option in options]
        if any(option is None for option in resolved):
            return False
        known = cast("list[dict[str, Json]]", resolved)
        return _disjoint([_types(option) for option in known]) or any(
            _disjoint([_tags(option, name) for option in known]) for name in _names(known[0].get("required", ()))
        )

    def _resolved(self, schema: Json) -> dict[str, Json] | None:
        """A schema, or what it refers to where it is a plain reference inside the document."""
        for _ in range(_REF_HOPS):
            if not isinstance(schema, dict):
                return None
            found = cast("dict[str, Json]", schema)
            if "$ref" not in found:
                return found
            schema = self._at(found["$ref"])
        return None

    def _at(self, reference: Json) -> Json:
        """What a JSON pointer such as `#/$defs/name` points to, or None."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        at: Json = self._root
        for part in reference[2:].split("/"):
            at = cast("dict[str, Json]", at).get(part) if isinstance(at, dict) else None
        return at


def _narrow(constraints: dict[str, Json], applicators: dict[str, Json]) -> None:
    """Drop a format that only annotates, and make an enforced one exact."""
    form = constraints.get("format")
    if form in ANNOTATING_FORMATS:
        del constraints["format"]
    if form in _NARROWED:
        applicators["allOf"] = [*applicators.get("allOf", ()), {"pattern": _NARROWED[form]}]


def _without_effect(keyword: str, value: Json, beside: dict[str, Json]) -> bool:
    """Whether a keyword allows everything as it stands here."""
    if keyword == "uniqueItems":
        return value is False or (value is True and beside.get("maxItems") in (0, 1))
    if keyword in ("unevaluatedProperties", "unevaluatedItems"):
        return value is True
    if keyword == "nullable":
        return value is False
    if keyword == "propertyNames":  # all names are strings, which Zod spells out for every record
        return value is True or (isinstance(value, dict) and value in ({}, {"type": "string"}))
    return keyword == "additionalItems" and not isinstance(beside.get("items"), list)


# telling a oneOf's options apart


def _types(schema: dict[str, Json]) -> set[str] | None:
    """The JSON types that a schema allows, integers as numbers; None where it does not say."""
    found = schema.get("type")
    names = {found} if isinstance(found, str) else set(_names(found or ()))
    return {"number" if name == "integer" else name for name in names} or None


def _tags(schema: dict[str, Json], name: str) -> set[str] | None:
    """The values that an object's required property `name` may have, as JSON text; None where it does not say."""
    properties: Json = schema.get("properties")
    inner: Json = cast("dict[str, Json]", properties).get(name) if isinstance(properties, dict) else None
    if schema.get("type") != "object" or name not in _names(schema.get("required", ())) or not isinstance(inner, dict):
        return None
    tag = cast("dict[str, Json]", inner)
    values: Json = [tag["const"]] if "const" in tag else tag.get("enum")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in cast("list[Json]", values)):
        return None
    return set(cast("list[str]", values))


def _names(value: Json) -> Iterator[str]:
    listed = cast("list[Json]", value) if isinstance(value, list) else []
    return (name for name in listed if isinstance(name, str))


def _disjoint(sets: list[set[str] | None]) -> bool:
    seen: set[str] = set()
    for one in sets:
        if one is None or one & seen:
            return False
        seen |= one
    return True


_SCHEMA = words("additionalProperties additionalItems")
_SCHEMAS = words("anyOf oneOf allOf prefixItems")
_MAY_BE_EMPTY = words("items prefixItems")
_NAMED_SCHEMAS = words("properties patternProperties $defs definitions")
_APPLICATORS = words("anyOf oneOf allOf $ref const enum")
_HOLDERS = _SCHEMA | _SCHEMAS | _NAMED_SCHEMAS | {"items"}
_DEPENDENT = {
    "properties": "additionalProperties",
    "patternProperties": "additionalProperties",
    "prefixItems": "items",
    "items": "additionalItems",
}
"""What holds for all that another keyword does not speak of."""
_LIMITS = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
