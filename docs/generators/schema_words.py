# SPDX-License-Identifier: Apache-2.0
"""The few words that the schemas of the OpenAPI document are written in."""

from collections.abc import Mapping, Sequence

Schema = dict[str, object]


def ref(name: str) -> Schema:
    """A schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """The schema, or null: the parser takes a null member for an absent one."""
    if schema == {"type": "null"}:
        return schema
    if isinstance(kind := schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    if isinstance(values := schema.get("enum"), list):
        return {"enum": [*values, None]}
    return {"anyOf": [schema, {"type": "null"}]}


def text(*, low: int = 0, high: int) -> Schema:
    """A string of so many characters."""
    schema: Schema = {"type": "string", "maxLength": high}
    return {**schema, "minLength": low} if low else schema


def whole(low: int, high: int) -> Schema:
    """A whole number within bounds, both included."""
    return {"type": "integer", "minimum": low, "maximum": high}


def real(low: float, high: float, *, above_low: bool = False) -> Schema:
    """A number within bounds, the lower one excluded on request."""
    return {"type": "number", "exclusiveMinimum" if above_low else "minimum": low, "maximum": high}


def flag() -> Schema:
    """True or false."""
    return {"type": "boolean"}


def one_of(*values: object) -> Schema:
    """One of some values."""
    return {"enum": list(values)}


def array(items: Schema, *, low: int = 0, high: int | None = None) -> Schema:
    """An array of so many items."""
    schema: Schema = {"type": "array", "items": items}
    if low:
        schema["minItems"] = low
    if high is not None:
        schema["maxItems"] = high
    return schema


ABSENT: Schema = {"type": "null"}
"""Members that are not named: null counts as absent, whatever the name."""


def asked(required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    """An object of a request: optional members may be null, others may not be there, or be null."""
    properties = {**required, **{name: or_null(schema) for name, schema in optional.items()}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": ABSENT,
    }


def answered(members: Mapping[str, Schema], *, optional: Sequence[str] = ()) -> Schema:
    """An object of an answer: every member is there unless it is named as optional, and no other is."""
    return {
        "type": "object",
        "properties": dict(members),
        "required": [name for name in members if name not in optional],
        "additionalProperties": False,
    }
