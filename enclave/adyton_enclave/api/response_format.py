# SPDX-License-Identifier: Apache-2.0
"""``response_format``: the schema of the document that an answer has to be, if it has to be one.

``json_schema`` is enforced to the letter whether it says ``strict`` or not: an answer that ends with ``stop`` is a
document of the schema, and a schema with something that cannot be enforced is refused.
"""

import re
from collections.abc import Mapping
from typing import Final

from adyton_enclave.api.fields import Fields
from adyton_enclave.api.json_schema import check_schema

FIELD: Final = "response_format"
NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_DESCRIPTION_CHARS: Final = 16 * 1024


def parse_response_format(fields: Fields) -> Mapping[str, object] | None:
    """Take the attacker-controlled member; None when any text will do.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    members = fields.members(FIELD)
    if members is None:
        return None
    kind = members.required_text("type", max_chars=32)
    schema: Mapping[str, object] | None = None
    if kind == "json_object":
        schema = {"type": "object"}
    elif kind == "json_schema":
        inner = members.members("json_schema")
        if inner is None:
            raise members.wrong("json_schema", "is required")
        schema = parse_named_schema(inner)
        inner.finish()
    elif kind != "text":
        raise members.wrong("type", "must be one of text, json_object, json_schema")
    members.finish()
    return schema


def parse_named_schema(members: Fields) -> Mapping[str, object]:
    """Take ``name``, ``description``, ``strict`` and ``schema``.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    if not NAME.fullmatch(members.required_text("name")):
        raise members.wrong("name", "must have 1 to 64 letters, digits, _ or -")
    members.text("description", max_chars=_MAX_DESCRIPTION_CHARS)
    members.flag("strict")
    schema = members.take("schema")
    return check_schema({} if schema is None else schema, members.name("schema"))
