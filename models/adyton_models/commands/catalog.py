# SPDX-License-Identifier: Apache-2.0
"""`list`: what the catalog holds."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from adyton_models.catalog import identity_of, read_catalog, sha256_of
from adyton_models.commands.arguments import add_catalog, new_parser

_LIST: Final = """\
List the models of the catalog: name, size, licence, whether the file is there and has the listed SHA-256, and
the identity that clients see. A star marks the one that is served when none is named. Exit status 1 when a file
is missing or differs. `adyton-models identity` reads the files and computes everything anew."""
_LIST_EXAMPLES: Final = """\
  adyton-models list
  adyton-models list --json"""


def add_parsers(commands: Any) -> None:
    """Add the subcommand."""
    listing = new_parser(commands, "list", "list the models of the catalog", _LIST, _LIST_EXAMPLES)
    add_catalog(listing)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=run_list)


def _state(path: Path, sha256: str) -> str:
    if not path.is_file():
        return "missing"
    return "ok" if sha256_of(path) == sha256 else "SHA-256 differs"


def run_list(arguments: argparse.Namespace) -> int:
    """Print the catalog."""
    catalog = read_catalog(arguments.catalog)
    listed = []
    for entry in catalog.models:
        path = arguments.catalog.parent / entry.file
        listed.append(
            {
                "name": entry.name,
                "default": entry.name == catalog.default,
                "size_bytes": path.stat().st_size if path.is_file() else 0,
                "license": entry.license,
                "state": _state(path, entry.sha256),
                "sealed": bool(entry.key_id),
                "file": entry.file,
                "sha256": entry.sha256,
                "content": entry.content,
                "identity": identity_of(
                    entry.content, entry.n_ctx, entry.sampling, scorer=entry.scorer_parts
                ),
                "role": entry.role,
                "scorer": entry.scorer,
                "description": entry.description,
            }
        )
    if arguments.json:
        print(json.dumps(listed))
    else:
        width = max((len(str(row["name"])) for row in listed), default=0)
        for row in listed:
            star = "*" if row["default"] else " "
            size = f"{int(str(row['size_bytes'])) / 1e6:.1f} MB"
            state = f"{row['state']}, sealed" if row["sealed"] else row["state"]
            role = "" if row["role"] == "generator" else f"  {row['role']}"
            judge = f"  judged by {row['scorer']}" if row["scorer"] else ""
            print(
                f"{star} {row['name']:{width}} {size:>10}  {row['license']:12} {state:16} {row['description']}"
            )
            print(f"  {'':{width}} {row['identity']}{role}{judge}")
    return 0 if all(row["state"] == "ok" for row in listed) else 1
