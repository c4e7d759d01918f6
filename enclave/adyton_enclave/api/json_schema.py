# SPDX-License-Identifier: Apache-2.0
"""Callers' JSON schemas: bounded, and turned into a rule of a grammar.

SECURITY: a schema is hostile. It is bounded in size and depth before anything looks into it, and it enters a grammar
as one JSON text behind ``%json``, which no content of it can leave.
"""

import json
import math
from typing import Final

from adyton_protocol.errors import InvalidRequest

MAX_SCHEMA_CHARS: Final = 128 * 1024
MAX_SCHEMA_DEPTH: Final = 32
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
    return schema


def _bound(value: object, param: str, depth: int) -> None:
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
