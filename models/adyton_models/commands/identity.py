# SPDX-License-Identifier: Apache-2.0
"""`identity`: the digest that keysets, receipts and policies name, and what goes into it."""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from adyton_models.catalog import Catalog, Entry, Sampling, identity_of, read_catalog
from adyton_models.commands.arguments import add_catalog, new_parser, positive
from adyton_models.gguf_facts import read_facts
from adyton_models.model_files import ReadModel, read_files
from adyton_models.progress import ProgressBar
from adyton_protocol.errors import ConfigError
from adyton_protocol.gguf_canonical import neutral_reason
from adyton_protocol.model_identity import CacheProfile

_BAR_FROM_BYTES: Final = 1 << 28

_IDENTITY: Final = """\
Read models and print their identities, computed as the enclave computes them: one digest over the weights (a
Merkle tree over the tensors), tokenizer, chat template, hyperparameters, quantisation, context length, cache
types and sampling defaults. It stands in the attested keyset, in every receipt, in /v1/models and in policies.
How the file is packed does not matter: split or whole, sealed or not, whatever its name, licence or author says.

Without an argument, all models of the catalog. A FILE that the catalog does not list is taken with the
catalog's defaults and the context that `add` would give it; name the first file of a split model. Exit status 1
when a file is missing or is not what the catalog says."""
_EXAMPLES: Final = """\
  adyton-models identity
  adyton-models identity mine --parts              what differs from another model?
  adyton-models identity mine.gguf --n-ctx 4096
  adyton-models identity mine --json | jq -r '.[0].identity'"""


def add_parsers(commands: Any) -> None:
    """Add the subcommand."""
    parser = new_parser(commands, "identity", "compute identities of models", _IDENTITY, _EXAMPLES)
    add = parser.add_argument
    add(
        "model", nargs="*", metavar="NAME|FILE", help="of the catalog, or a GGUF (default: the whole catalog)"
    )
    add_catalog(parser)
    add("--parts", action="store_true", help="print the digest of each part, and what is left out and why")
    add("--n-ctx", type=positive, metavar="K", help="context in tokens (default: the catalog's)")
    cache = CacheProfile()
    for name, default in (("--kv-type-k", cache.kv_type_k), ("--kv-type-v", cache.kv_type_v)):
        add(
            name, default=default, metavar="TYPE", help="as in [engine] of the enclave (default: %(default)s)"
        )
    add("--json", action="store_true", help="print JSON, parts included")
    parser.set_defaults(run=run_identity)


def _chosen(arguments: argparse.Namespace) -> list[tuple[Entry, Path]]:
    """Entries and files; for a file of its own an entry is made up, which pins nothing."""
    if not arguments.model:
        catalog = read_catalog(arguments.catalog)
        return [(entry, arguments.catalog.parent / entry.file) for entry in catalog.models]
    chosen = []
    known: Catalog | None = None
    for name in arguments.model:
        if Path(name).is_file():
            made_up = Entry(
                name=Path(name).stem,
                file=name,
                sha256="",
                content="",
                weights="",
                license="",
                n_ctx=read_facts(Path(name)).default_n_ctx,
                sampling=Sampling(),
            )
            chosen.append((made_up, Path(name)))
            continue
        if name.endswith(".gguf"):
            raise ConfigError(f"there is no file {name}")
        known = known or read_catalog(arguments.catalog)
        entry = known.entry(name)
        chosen.append((entry, arguments.catalog.parent / entry.file))
    return chosen


def _read(path: Path) -> ReadModel:
    if path.is_file() and path.stat().st_size < _BAR_FROM_BYTES:
        return read_files(path)
    bar = ProgressBar(path.name)
    found = read_files(path, bar.update)
    bar.close()
    return found


def _document(entry: Entry, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    n_ctx = arguments.n_ctx or entry.n_ctx
    cache = CacheProfile(kv_type_k=arguments.kv_type_k, kv_type_v=arguments.kv_type_v)
    facts: dict[str, Any] = {"name": entry.name, "file": str(path)}
    if not path.is_file():
        return {**facts, "state": "missing"}
    read = _read(path)
    content = read.content
    listed = not entry.content or (entry.content, entry.weights) == (content.digest, content.weights)
    types = Counter(tensor.type.name for tensor in read.model.tensors.values())
    return {
        **facts,
        "state": "ok" if listed else "differs from the catalog",
        "identity": identity_of(content.digest, n_ctx, entry.sampling, cache, entry.scorer_parts),
        "content": content.digest,
        "parts": asdict(content),
        "tensor_types": dict(types.most_common()),
        "n_ctx": n_ctx,
        "sampling": {key: value for key, value in asdict(entry.sampling).items() if key != "max_tokens"},
        "cache": asdict(cache),
        "scorer": None if entry.scorer_parts is None else asdict(entry.scorer_parts),
        "left_out": {key: neutral_reason(key) for key in sorted(read.model.dropped)},
    }


def _table(document: dict[str, Any]) -> str:
    parts, cache = document["parts"], document["cache"]
    types = ", ".join(f"{count} {name}" for name, count in document["tensor_types"].items())
    attention = "" if cache["flash_attention"] else ", without flash attention"
    lines = [
        ("identity", document["identity"]),
        ("content", document["content"]),
        ("  weights", parts["weights"]),
        ("  tokenizer", parts["tokenizer"]),
        ("  chat template", parts["chat_template"]),
        ("  hyperparameters", parts["hyperparameters"]),
        ("  quantisation", f"{parts['quantisation']}  ({types})"),
        ("n_ctx", document["n_ctx"]),
        ("sampling", ", ".join(f"{key} {value}" for key, value in document["sampling"].items())),
        ("cache", f"keys {cache['kv_type_k']}, values {cache['kv_type_v']}{attention}"),
        *((f"scorer: {part}", digest) for part, digest in (document["scorer"] or {}).items() if digest),
        *((f"left out: {key}", why) for key, why in document["left_out"].items()),
    ]
    width = max(len(label) for label, _ in lines)
    return "\n".join([document["name"], *(f"  {label:{width}}  {value}" for label, value in lines)])


def run_identity(arguments: argparse.Namespace) -> int:
    """Compute and print."""
    documents = [_document(entry, path, arguments) for entry, path in _chosen(arguments)]
    if arguments.json:
        print(json.dumps(documents))
    else:
        for document in documents:
            state = "" if document["state"] == "ok" else f"  ({document['state']})"
            if arguments.parts and "parts" in document:
                print(_table(document) + state)
            else:
                print(f"{document.get('identity', '-'):71}  {document['name']}{state}")
    return 0 if all(document["state"] == "ok" for document in documents) else 1
