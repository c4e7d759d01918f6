# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of ``docs/reports.md`` from the schemas in ``docs/schemas``, between the marks that are there.

Usage: python docs/generators/reports_page.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).resolve().parents[1]
PAGE: Final = DOCS / "reports.md"
SCHEMAS: Final = ("verify", "quote-verify", "receipt-verify", "receipt-audit")

_MARKED: Final = re.compile(r"(<!-- ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read_schema(name: str) -> dict[str, Any]:
    """Read one schema."""
    schema: dict[str, Any] = json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text("utf-8"))
    return schema


def tables(schema: dict[str, Any]) -> str:
    """Write one table for each form of a document."""
    return "\n".join(_table(form) for form in schema["oneOf"])


def rendered(page: str) -> str:
    """Put the tables between their marks."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{tables(read_schema(found[2]))}\n{found[3]}", page)


def _table(form: dict[str, Any]) -> str:
    rows = "\n".join(f"| `{path}` | {kind} | {words} |" for path, kind, words in _rows(form, ""))
    return f"**{form['description']}**\n\n| member | type | meaning |\n|---|---|---|\n{rows}\n"


def _rows(form: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    required = form.get("required", ())
    for name, member in form["properties"].items():
        yield prefix + name, _kind(member) + ("" if name in required else ", optional"), member["description"]
        items = member.get("items", {})
        if "properties" in member:
            yield from _rows(member, f"{prefix}{name}.")
        elif "properties" in items:
            yield from _rows(items, f"{prefix}{name}[].")


def _kind(member: dict[str, Any]) -> str:
    if "const" in member:
        return json.dumps(member["const"])
    if "enum" in member:
        return "string"
    kind = member["type"]
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text("utf-8")), "utf-8")
