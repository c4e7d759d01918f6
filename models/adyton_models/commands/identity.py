# SPDX-License-Identifier: Apache-2.0
"""`identity`: the digest that keysets, receipts and policies name, and what goes into it."""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from adyton_enclave.weights.model_file import sealed_header
from adyton_enclave.weights.terms import SealedTerms
from adyton_models.catalog import Catalog, Entry, Sampling, identity_of, read_catalog, sha256_of
from adyton_models.commands.arguments import add_catalog, new_parser, positive
from adyton_models.gguf_facts import read_facts
from adyton_models.model_files import ReadModel, read_files
from adyton_models.progress import ProgressBar
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ConfigError, LocalProtocolError, ModelFileError
from adyton_protocol.gguf_canonical import neutral_reason
from adyton_protocol.model_identity import CacheProfile, ModelPin

_BAR_FROM_BYTES: Final = 1 << 28

_OK: Final = "ok"
_MISSING: Final = "missing"
_DIFFERS: Final = "differs from the catalog"

_IDENTITY: Final = """\
Read models and print their identities, computed as the enclave computes them: one digest over the weights (a
Merkle tree over the tensors), tokenizer, chat template, hyperparameters, quantisation, context length, cache
types and sampling defaults. It stands in the attested keyset, in every receipt, in /v1/models and in policies.
How the file is packed does not matter: split or whole, sealed or not, whatever its name, licence or author says.

Without an argument, all models of the catalog, scorers with their adapters and heads. A FILE is taken with the
sampling defaults and the context that `add` would give it; name the first file of a split model. Of a sealed model
the catalog says what it holds, which an enclave enforces: here, without its key, only its header is looked at.
Exit status 1 when a file is missing or is not what the catalog says."""
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


def _beside(entry: Entry, catalog: Path) -> str:
    """Whether a scorer's adapter and head are what the catalog says."""
    for file, digest in ((entry.adapter, entry.adapter_digest), (entry.head, entry.head_digest)):
        path = catalog.parent / file
        if file and not path.is_file():
            return _MISSING
        if file and f"sha256:{sha256_of(path)}" != digest:
            return _DIFFERS
    return _OK


def _read_clear(entry: Entry, path: Path) -> dict[str, Any]:
    read = _read(path)
    content = read.content
    listed = not entry.content or (entry.content, entry.weights) == (content.digest, content.weights)
    types = Counter(tensor.type.name for tensor in read.model.tensors.values())
    return {
        "state": _OK if listed else _DIFFERS,
        "content": content.digest,
        "parts": asdict(content),
        "tensor_types": dict(types.most_common()),
        "left_out": {key: neutral_reason(key) for key in sorted(read.model.dropped)},
    }


def _read_sealed(entry: Entry, path: Path) -> dict[str, Any]:
    """What is known without the key: the header has to fit what the catalog makes the enclave demand."""
    try:
        pin = ModelPin(content=Digest(entry.content), weights=Digest(entry.weights))
        terms = SealedTerms(key_id=bytes.fromhex(entry.key_id), min_version=entry.min_version)
    except (LocalProtocolError, ValueError) as error:
        raise ConfigError(f"model {entry.name!r} of the catalog: no digest or key id: {error}") from error
    try:
        terms.check(sealed_header(str(path)), pin)
    except ModelFileError:
        state = _DIFFERS
    else:
        state = _OK
    return {"state": state, "content": entry.content, "parts": {"weights": entry.weights}}


def _document(entry: Entry, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    n_ctx = arguments.n_ctx or entry.n_ctx
    cache = CacheProfile(kv_type_k=arguments.kv_type_k, kv_type_v=arguments.kv_type_v)
    facts: dict[str, Any] = {"name": entry.name, "file": str(path), "sealed": bool(entry.key_id)}
    beside = _beside(entry, arguments.catalog)
    if not path.is_file() or beside == _MISSING:
        return {**facts, "state": _MISSING}
    facts |= _read_sealed(entry, path) if entry.key_id else _read_clear(entry, path)
    return {
        **facts,
        "state": facts["state"] if beside == _OK else beside,
        "identity": identity_of(facts["content"], n_ctx, entry.sampling, cache, entry.scorer_parts),
        "n_ctx": n_ctx,
        "sampling": {key: value for key, value in asdict(entry.sampling).items() if key != "max_tokens"},
        "cache": asdict(cache),
        "scorer": None if entry.scorer_parts is None else asdict(entry.scorer_parts),
    }


def _table(document: dict[str, Any]) -> str:
    parts, cache = document["parts"], document["cache"]
    types = ", ".join(f"{count} {name}" for name, count in document.get("tensor_types", {}).items())
    attention = "" if cache["flash_attention"] else ", without flash attention"
    lines = [
        ("identity", document["identity"]),
        ("content", document["content"]),
        *((f"  {part.replace('_', ' ')}", digest) for part, digest in parts.items()),
        *([("  tensor types", types)] if types else [("  other parts", "sealed")]),
        ("n_ctx", document["n_ctx"]),
        ("sampling", ", ".join(f"{key} {value}" for key, value in document["sampling"].items())),
        ("cache", f"keys {cache['kv_type_k']}, values {cache['kv_type_v']}{attention}"),
        *((f"scorer: {part}", digest) for part, digest in (document["scorer"] or {}).items() if digest),
        *((f"left out: {key}", why) for key, why in document.get("left_out", {}).items()),
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
            state = "" if document["state"] == _OK else f"  ({document['state']})"
            if arguments.parts and "parts" in document:
                print(_table(document) + state)
            else:
                print(f"{document.get('identity', '-'):71}  {document['name']}{state}")
    return 0 if all(document["state"] == _OK for document in documents) else 1
