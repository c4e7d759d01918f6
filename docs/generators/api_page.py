# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of ``docs/api.md``: what happens to every parameter, and every error.

``make openapi`` runs this. Everything between ``<!-- table: NAME -->`` and ``<!-- end of table -->`` is replaced.
"""

import json
import re
from pathlib import Path
from typing import Final

from adyton_enclave.api.parameters import PARAMETERS, Parameter, Treatment
from openapi_document import ERRORS

PAGE: Final = Path(__file__).resolve().parents[1] / "api.md"

_TABLE: Final = re.compile(r"(<!-- table: ([^>]*) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_TREATED: Final = {
    Treatment.SUPPORTED: "supported",
    Treatment.IGNORED: "ignored, with a warning",
    Treatment.REFUSED: "refused",
}


def with_tables(page: str) -> str:
    """The page with every table written anew."""
    return _TABLE.sub(lambda found: found[1] + _table(found[2]) + found[3], page)


def _table(name: str) -> str:
    return _errors() if name == "errors" else _parameters(name)


def _parameters(endpoint: str) -> str:
    rows = [entry for entry in PARAMETERS if endpoint in entry.endpoints]
    if not rows:
        raise LookupError(f"no endpoint {endpoint}")
    lines = ["| parameter | what happens | |", "|---|---|---|"]
    lines += [f"| `{entry.name}` | {_treated(entry)} | {entry.note} |" for entry in rows]
    return "\n".join(lines) + "\n"


def _treated(entry: Parameter) -> str:
    treated = _TREATED[entry.treatment]
    if entry.treatment is Treatment.SUPPORTED or not entry.neutral:
        return treated
    # A value that asks for nothing is no reason to fail a request.
    neutral = ", ".join(f"`{json.dumps(value)}`" for value in entry.neutral)
    return f"{treated}, unless {neutral}"


def _errors() -> str:
    lines = ["| status | `code` | when | the same request again |", "|---|---|---|---|"]
    for error in sorted(ERRORS, key=lambda each: each.status):
        when = (error.__doc__ or "").split("\n", 1)[0].split("; found out", 1)[0].rstrip(".")
        again = "after changing it" if error.fault == "caller" else "later" if error.retry_safe else "no use"
        lines.append(f"| {error.status} | `{error.code.replace('-', '_')}` | {when} | {again} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
