# SPDX-License-Identifier: Apache-2.0
"""Callers' JSON schemas: bounded, and turned into a rule of a grammar.

SECURITY: a schema is hostile. It is bounded in size and depth before anything looks into it, and it enters a grammar
as one JSON text behind ``%json``, which no content of it can leave.
"""

import json
import math
import re
from decimal import Decimal
from typing import Final

from adyton_protocol.errors import InvalidRequest

MAX_SCHEMA_CHARS: Final = 128 * 1024
MAX_SCHEMA_DEPTH: Final = 32
MAX_PATTERN_CHARS: Final = 4096
MAX_REPETITIONS: Final = 20_000
MAX_PROPERTIES: Final = 1000
MAX_COMBINED: Final = 4
MAX_MULTIPLES: Final = 10_000
_EXPRESSIONS: Final = ("pattern", "format", "multipleOf")
_BRANCHES: Final = frozenset({"$ref", "anyOf", "oneOf"})
_ANNOTATIONS: Final = frozenset(
    {
        "title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly", "$defs",
        "definitions", "$schema", "$id",
    }
)  # fmt: skip
_COUNT: Final = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}", re.ASCII)
_COUNT_DIGITS: Final = 6
_OPTIONS: Final = "x-guidance"
_WHITESPACE: Final = r"(\n[ \t]{0,32}| ?)"
"""Between the parts of a document: a space, or a new line with indentation. Unbounded, a weak model may never stop."""


def check_schema(schema: object, param: str) -> dict[str, object]:
    """Bound an attacker-controlled schema.

    Args:
        schema: A JSON value.
        param: What errors call it.

    Raises:
        InvalidRequest: It is no schema, too long or too deep, or tries to set options of the grammar.
    """
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{param} must be an object", param=param)
    if _OPTIONS in schema:
        raise InvalidRequest(f"{param} has a member that is not of JSON Schema", param=param)
    _bound(schema, param, 0)
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
        raise InvalidRequest(f"{param} must have at most {MAX_SCHEMA_CHARS} characters", param=param)
    _check_cost(schema, param)
    return schema


def _bound(value: object, param: str, depth: int) -> None:
    """Bound the nesting, so that everything after this may recurse, and the numbers."""
    if depth > MAX_SCHEMA_DEPTH:
        raise InvalidRequest(f"{param} must be nested at most {MAX_SCHEMA_DEPTH} deep", param=param)
    match value:
        case dict():
            for item in value.values():
                _bound(item, param, depth + 1)
        case list():
            for item in value:
                _bound(item, param, depth + 1)
        case float() if not math.isfinite(value):
            raise InvalidRequest(f"{param} holds a number that is too large", param=param)


class _Census:
    """Counts what compiling a schema could take too long for.

    SECURITY: llguidance limits most of its work, but not the regular expressions that it makes of a string or number
    under several constraints at once: sixteen patterns joined by ``allOf``, seven ``multipleOf``, or a repetition
    of a thousand millions keep it busy for minutes, and nothing can stop it. Names of properties are counted as
    if they were keywords, which errs on the safe side.
    """

    def __init__(self, schema: dict[str, object]) -> None:
        self.pattern_chars = 0
        self.repetitions = 1
        self.expressions = 0
        self.multiples_sum = 0
        self.multiples_product = 1
        self.most_properties = 0
        self.combines = False
        self._look(schema)

    def _look(self, value: object) -> None:
        if isinstance(value, list):
            for item in value:
                self._look(item)
        elif isinstance(value, dict):
            self._object(value)
            for item in value.values():
                self._look(item)

    def _object(self, members: dict[str, object]) -> None:
        self.expressions += sum(keyword in members for keyword in _EXPRESSIONS)
        multiple = members.get("multipleOf")
        if isinstance(multiple, int | float) and not isinstance(multiple, bool):
            # The automaton of a multiple has as many states; a fraction counts as its digits.
            states = abs(int("".join(map(str, Decimal(str(multiple)).as_tuple().digits))))
            self.multiples_sum += states
            self.multiples_product = min(self.multiples_product * max(1, states), MAX_MULTIPLES + 1)
        patterns = [members.get("pattern")]
        if isinstance(named := members.get("patternProperties"), dict):
            patterns += named
            self.expressions += len(named)
        if isinstance(properties := members.get("properties"), dict):
            self.most_properties = max(self.most_properties, len(properties))
        for pattern in patterns:
            if isinstance(pattern, str):
                self.pattern_chars += len(pattern)
                self.repetitions = max(self.repetitions, _repetitions(pattern))
        # Beside one of these every other keyword is one more constraint on the same value.
        if "allOf" in members or (_BRANCHES & members.keys() and members.keys() - _BRANCHES - _ANNOTATIONS):
            self.combines = True


def _repetitions(pattern: str) -> int:
    """The product of all counts: no less than how often anything in the pattern is repeated."""
    product = 1
    for low, high in _COUNT.findall(pattern):
        product *= max(1, int((high or low)[:_COUNT_DIGITS]))
        if len(high or low) > _COUNT_DIGITS or product > MAX_REPETITIONS:
            return MAX_REPETITIONS + 1
    return product


def _check_cost(schema: dict[str, object], param: str) -> None:
    census = _Census(schema)
    if census.pattern_chars > MAX_PATTERN_CHARS:
        problem = f"must have patterns of at most {MAX_PATTERN_CHARS} characters together"
    elif census.repetitions > MAX_REPETITIONS:
        problem = f"must have patterns whose counts multiply to at most {MAX_REPETITIONS}"
    elif census.most_properties > MAX_PROPERTIES:
        problem = f"must have objects of at most {MAX_PROPERTIES} properties"
    elif census.multiples_sum > MAX_MULTIPLES or (
        census.combines and census.multiples_product > MAX_MULTIPLES
    ):
        problem = f"must have values of multipleOf that add up, or multiply, to at most {MAX_MULTIPLES}"
    elif census.combines and census.expressions > MAX_COMBINED:
        problem = (
            f"must have at most {MAX_COMBINED} of pattern, format, multipleOf and patternProperties when it also has "
            "allOf, or $ref, anyOf or oneOf beside other keywords"
        )
    else:
        return
    raise InvalidRequest(f"{param} {problem}", param=param)


def schema_rule(schema: dict[str, object], *, lenient: bool = False) -> str:
    """A grammar's expression for the JSON documents that a checked schema allows.

    Args:
        schema: From :func:`check_schema`.
        lenient: Overlook keywords that cannot be enforced instead of failing, and take ``oneOf`` for ``anyOf``.
    """
    options: dict[str, object] = {"whitespace_pattern": _WHITESPACE}
    if lenient:
        options |= {"lenient": True, "coerce_one_of": True}
    return "%json " + json.dumps({**schema, _OPTIONS: options})
