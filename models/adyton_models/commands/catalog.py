# SPDX-License-Identifier: Apache-2.0
"""`list` and `add`: the catalog."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from adyton_models.catalog import (
    Catalog,
    Entry,
    identity_of,
    read_catalog,
    render_catalog,
    sha256_of,
    with_entry,
)
from adyton_models.commands.arguments import add_catalog, new_parser, positive
from adyton_models.model_files import read_files
from adyton_protocol.errors import ConfigError

_LIST: Final = """\
List the models of the catalog: name, size, licence, whether the file is there and has the listed SHA-256, and
the identity that clients see. A star marks the one that is served when none is named. Exit status 1 when a file
is missing or differs. `adyton-models identity` reads the files and computes everything anew."""
_LIST_EXAMPLES: Final = """\
  adyton-models list
  adyton-models list --json"""

_ADD: Final = """\
Register a GGUF file in the catalog: computes what it holds and writes an entry, in the place of an older
one of the same name. Serve it with: adyton-host up --simulate --model NAME"""
_ADD_EXAMPLES: Final = """\
  adyton-models add mine.gguf --name mine --license Apache-2.0
  adyton-models add /data/other.gguf --name other --license MIT --n-ctx 4096 --default"""


def add_parsers(commands: Any) -> None:
    """Add both subcommands."""
    listing = new_parser(commands, "list", "list the models of the catalog", _LIST, _LIST_EXAMPLES)
    add_catalog(listing)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=run_list)
    adding = new_parser(commands, "add", "register a GGUF in the catalog", _ADD, _ADD_EXAMPLES)
    adding.add_argument("file", type=Path, metavar="FILE")
    adding.add_argument("--name", required=True, metavar="NAME", help="by which clients ask for it")
    adding.add_argument("--license", required=True, metavar="SPDX", help="licence of the weights")
    adding.add_argument(
        "--n-ctx", type=positive, default=1024, metavar="K", help="context in tokens (default: 1024)"
    )
    adding.add_argument(
        "--embeddings", action="store_true", help="let it make embeddings as well (a second, small context)"
    )
    adding.add_argument("--only-embeddings", action="store_true", help="an embedding model: it never answers")
    adding.add_argument(
        "--matryoshka",
        action="store_true",
        help="its vectors may be cut (`dimensions`), as it was trained for",
    )
    adding.add_argument("--description", default="", metavar="TEXT", help="one line for people")
    adding.add_argument("--default", action="store_true", help="serve it when no model is named")
    add_catalog(adding)
    adding.set_defaults(run=run_add)


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
                "file": entry.file,
                "sha256": entry.sha256,
                "content": entry.content,
                "identity": identity_of(entry.content, entry.n_ctx, entry.sampling),
                "description": entry.description,
            }
        )
    if arguments.json:
        print(json.dumps(listed))
    else:
        for row in listed:
            star = "*" if row["default"] else " "
            size = f"{int(str(row['size_bytes'])) / 1e6:.1f} MB"
            print(
                f"{star} {row['name']:20} {size:>10}  {row['license']:12} {row['state']:16} {row['description']}"
            )
            print(f"  {'':20} {row['identity']}")
    return 0 if all(row["state"] == "ok" for row in listed) else 1


def run_add(arguments: argparse.Namespace) -> int:
    """Write an entry."""
    path: Path = arguments.file
    content = read_files(path).content
    if arguments.matryoshka and not (arguments.embeddings or arguments.only_embeddings):
        raise ConfigError("--matryoshka needs --embeddings or --only-embeddings")
    file: Path = arguments.catalog
    catalog = read_catalog(file) if file.exists() else Catalog(default=None, models=())
    base, full = file.resolve().parent, path.resolve()
    entry = Entry(
        name=arguments.name,
        file=full.relative_to(base).as_posix() if full.is_relative_to(base) else full.as_posix(),
        sha256=sha256_of(path),
        content=content.digest,
        weights=content.weights,
        license=arguments.license,
        n_ctx=arguments.n_ctx,
        role="embedding" if arguments.only_embeddings else "generator",
        embeddings=arguments.embeddings or arguments.only_embeddings,
        matryoshka=arguments.matryoshka,
        description=arguments.description,
    )
    changed = with_entry(catalog, entry, make_default=arguments.default)
    file.write_text(render_catalog(changed), encoding="utf-8")
    print(f"{entry.name}: {entry.file}, identity {identity_of(entry.content, entry.n_ctx, entry.sampling)}")
    return 0
