# SPDX-License-Identifier: Apache-2.0
"""Values on both sides of every bound of a JSON Schema, for the parts of our schemas that generators pass over.

Nothing here knows which side is valid; whoever uses the values asks the schema itself.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_STRANGERS: tuple[Any, ...] = (None, 0.5, "?", [None], {"?": 0})
_LONGEST = 1 << 16


class Edges:
    """Walks the schemas of one document."""

    def __init__(self, components: Mapping[str, Any]) -> None:
        self._components = components

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._components[schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def sample(self, schema: Schema) -> Any:
        """Some plain value of the schema."""
        schema = self._resolved(schema)
        if "enum" in schema:
            return schema["enum"][0]
        if "const" in schema:
            return schema["const"]
        for branch in ("anyOf", "oneOf"):
            if branch in schema:
                return self.sample(schema[branch][0])
        kind = schema.get("type", "object")
        match kind if isinstance(kind, str) else kind[0]:
            case "integer" | "number":
                return schema.get("minimum", schema.get("maximum", 1))
            case "string":
                return "x" * max(1, schema.get("minLength", 0))
            case "boolean":
                return True
            case "array":
                return [self.sample(schema["items"])] * schema.get("minItems", 0)
            case "null":
                return None
        return {name: self.sample(schema["properties"][name]) for name in schema.get("required", ())}

    def around(self, schema: Schema) -> Iterator[Any]:
        """Values at, inside and outside every bound, one bound at a time."""
        schema = self._resolved(schema)
        yield from _STRANGERS
        yield from schema.get("enum", ())
        for branch in ("anyOf", "oneOf"):
            for alternative in schema.get(branch, ()):
                yield from self.around(alternative)
        yield from _numbers(schema)
        yield from _strings(schema)
        if "items" in schema:
            yield from self._arrays(schema)
        if "properties" in schema:
            yield from self._objects(schema)
        if "maxProperties" in schema:
            yield from self._maps(schema)

    def _arrays(self, schema: Schema) -> Iterator[Any]:
        for key, step in itertools.product(("minItems", "maxItems"), (-1, 0, 1)):
            if 0 <= schema.get(key, -2) + step <= _LONGEST:
                yield [self.sample(schema["items"])] * (schema[key] + step)
        for item in self.around(schema["items"]):
            yield [item]

    def _maps(self, schema: Schema) -> Iterator[Any]:
        for value in self.around(schema["additionalProperties"]):
            yield {"0": value}
        value = self.sample(schema["additionalProperties"])
        for count in (schema["maxProperties"], schema["maxProperties"] + 1):
            yield {str(name): value for name in range(count)}
        for name in ("", "x", "-1", "1.0", "9" * 10, "9" * 11):
            yield {name: value}

    def _objects(self, schema: Schema) -> Iterator[Any]:
        base = self.sample(schema)
        for name in base:
            yield {other: value for other, value in base.items() if other != name}
        yield {**base, "no_such_field": 1}
        yield {**base, "no_such_field": None}
        for name, member in schema["properties"].items():
            for value in self.around(member):
                yield {**base, name: value}
        for name, rule in schema.get("dependentSchemas", {}).items():
            for switch in rule["then"]["properties"]:
                for value in (None, False, True, 0):
                    yield {**base, name: self.sample(schema["properties"][name]), switch: value}


def _numbers(schema: Schema) -> Iterator[Any]:
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if key in schema:
            bound = schema[key]
            yield from (bound - 1, bound, bound + 1, bound - 0.001, bound + 0.001)


def _strings(schema: Schema) -> Iterator[Any]:
    for key, step in itertools.product(("minLength", "maxLength"), (-1, 0, 1)):
        if 0 <= schema.get(key, -2) + step <= _LONGEST:
            yield "x" * (schema[key] + step)
