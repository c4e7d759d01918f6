# SPDX-License-Identifier: Apache-2.0
"""`add` and `remove`: what an appliance can serve."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adyton_models.catalog import (
    Catalog,
    Entry,
    identity_of,
    read_catalog,
    sha256_of,
    with_entry,
    without_entry,
    write_catalog,
)
from adyton_models.commands.arguments import add_catalog, new_parser, positive, up_command
from adyton_models.model_files import read_files
from adyton_models.progress import ProgressBar
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_models.gguf_facts import ModelFacts
    from adyton_models.memory_estimate import MemoryEstimate
    from adyton_models.suitability import Finding, Wishes
    from adyton_protocol.model_identity import ModelContent

_ADD: Final = """\
Bring your own GGUF: check a file, and write an entry into the catalog if it can be served, in the place of an older
one of the same name. Of a model in several files (NAME-00001-of-00003.gguf), name the first.

What is checked: that the enclave's own parser takes the file, that the engine can serve the architecture, the
context asked for against the one it was trained for, the vocabulary, the chat template, the licence, whether answers
are reproducible bit for bit, and what memory it takes (weights, cache, computation) with the enclave size that
follows. Then the model is loaded in a process of its own and decodes a few tokens (--no-trial leaves that out).

`fail` keeps it out of the catalog (exit status 1), `warn` is for you to judge. Serve it afterwards with:
adyton-host up --simulate --model NAME"""
_ADD_EXAMPLES: Final = """\
  adyton-models add mine.gguf --name mine
  adyton-models add mine.gguf --name mine --dry-run              only look
  adyton-models add other-00001-of-00002.gguf --name other --license MIT --n-ctx 8192 --default
  adyton-models add bge.gguf --name bge --only-embeddings
  adyton-models add prm.gguf --name prm --adapter prm.toml       a scorer; see docs/scorers.md
  adyton-models add mine.gguf --name mine --scorer prm           who judges its answers"""

_REMOVE: Final = """\
Take a model out of the catalog. Its file stays where it is."""
_REMOVE_EXAMPLES: Final = """\
  adyton-models remove mine"""

_SHARED_CELLS: Final = 16_384
"""`engine.n_ctx_total` of an enclave that is not told otherwise."""
_BAR_FROM_BYTES: Final = 1 << 28
_MARKS: Final = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "skip": "skip"}


def add_parsers(commands: Any) -> None:
    """Add both subcommands."""
    adding = new_parser(commands, "add", "check a GGUF and put it into the catalog", _ADD, _ADD_EXAMPLES)
    add = adding.add_argument
    add("file", type=Path, metavar="FILE")
    add("--name", required=True, metavar="NAME", help="by which clients ask for it")
    add("--license", metavar="SPDX", help="licence of the weights (default: what the file says)")
    add(
        "--n-ctx",
        type=positive,
        metavar="K",
        help="context in tokens (default: what it was trained for, at most 4096)",
    )
    add(
        "--sequences",
        type=positive,
        metavar="K",
        help="full contexts at once, for the estimate of memory (default: what the enclave's default of "
        f"{_SHARED_CELLS} cells holds)",
    )
    add("--embeddings", action="store_true", help="let it make embeddings as well (a second, small context)")
    add("--only-embeddings", action="store_true", help="an embedding model: it never answers")
    add(
        "--adapter", type=Path, metavar="FILE", help="it is a scorer, asked by this adapter: it never answers"
    )
    add("--head", type=Path, metavar="FILE", help="the scorer's head, for adapters of kind `head`")
    add("--scorer", default="", metavar="NAME", help="the scorer of the catalog that judges its answers")
    add(
        "--matryoshka",
        action="store_true",
        help="its vectors may be cut (`dimensions`), as it was trained for",
    )
    add(
        "--description",
        default="",
        metavar="TEXT",
        help="one line for people (default: the file's name for itself)",
    )
    add("--default", action="store_true", help="serve it when no model is named")
    add("--no-trial", action="store_true", help="do not load it")
    add("--dry-run", action="store_true", help="check, and change nothing")
    add("--json", action="store_true", help="print JSON")
    add_catalog(adding)
    adding.set_defaults(run=run_add)
    removing = new_parser(commands, "remove", "take a model out of the catalog", _REMOVE, _REMOVE_EXAMPLES)
    removing.add_argument("name", metavar="NAME")
    removing.add_argument("--json", action="store_true", help="print JSON")
    add_catalog(removing)
    removing.set_defaults(run=run_remove)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What was found out about a file."""

    findings: Sequence["Finding"]
    memory: "MemoryEstimate"
    trial: dict[str, Any] | None

    @property
    def served(self) -> bool:
        return all(finding.verdict != "fail" for finding in self.findings)


def run_add(arguments: argparse.Namespace) -> int:
    """Check a file and write an entry."""
    if arguments.matryoshka and not (arguments.embeddings or arguments.only_embeddings):
        raise ConfigError("--matryoshka needs --embeddings or --only-embeddings")
    _check_scorer(arguments)
    try:
        from adyton_models.gguf_facts import read_facts  # noqa: PLC0415 - loads llama.cpp
        from adyton_models.suitability import examine, license_of, spdx  # noqa: PLC0415 - loads llama.cpp
    except ImportError as error:
        raise ConfigError(f"add needs the extra 'enclave' (llama-cpp-python): {error}") from error
    facts = read_facts(arguments.file)
    wishes = _wishes(arguments, facts)
    findings = examine(facts, wishes)
    content = _content(arguments.file, facts.size_bytes)
    adapter, adapter_digest = _beside(arguments.adapter, arguments.catalog)
    head, head_digest = _beside(arguments.head, arguments.catalog)
    entry = Entry(
        name=arguments.name,
        file=_relative(arguments.file, arguments.catalog),
        sha256=sha256_of(arguments.file),
        content=content.digest,
        weights=content.weights,
        license=spdx(wishes.license) if wishes.license else license_of(facts) or "",
        n_ctx=wishes.n_ctx,
        role=_role(arguments),
        scorer=arguments.scorer,
        adapter=adapter,
        adapter_digest=adapter_digest,
        head=head,
        head_digest=head_digest,
        embeddings=wishes.embeddings,
        matryoshka=arguments.matryoshka,
        description=arguments.description or facts.text("general.name") or "",
    )
    catalog = _catalog(arguments.catalog)
    changed = with_entry(catalog, entry, make_default=arguments.default)
    report = _try(arguments, facts, wishes, entry, findings)
    added = report.served and not arguments.dry_run
    if added:
        write_catalog(changed, arguments.catalog)
    if arguments.json:
        print(json.dumps(_document(entry, report, added=added)))
    else:
        is_default = changed.default == entry.name
        _print(entry, report, added=added, is_default=is_default, catalog=arguments.catalog)
    return 0 if report.served else 1


def _role(arguments: argparse.Namespace) -> str:
    if arguments.adapter is not None:
        return "scorer"
    return "embedding" if arguments.only_embeddings else "generator"


def _check_scorer(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict one another, and a scorer that is not there."""
    if arguments.head is not None and arguments.adapter is None:
        raise ConfigError("--head needs --adapter")
    if arguments.adapter is not None and (
        arguments.scorer or arguments.embeddings or arguments.only_embeddings or arguments.default
    ):
        raise ConfigError("a scorer judges answers and does nothing else: leave the other roles out")
    if arguments.scorer and _catalog(arguments.catalog).entry(arguments.scorer).role != "scorer":
        raise ConfigError(f"{arguments.scorer!r} is no scorer; add one with --adapter")


def _beside(path: Path | None, catalog: Path) -> tuple[str, str]:
    """Where a file beside the model lies, and its digest; both empty without one."""
    return ("", "") if path is None else (_relative(path, catalog), f"sha256:{sha256_of(path)}")


def _judge_scorer(arguments: argparse.Namespace, n_ctx: int) -> "Finding":
    """Load the scorer with adapter and head, and hold it to its golden vectors, as an enclave will."""
    from adyton_models.scoring import ScorerRunner  # noqa: PLC0415 - loads llama.cpp
    from adyton_models.suitability import Finding  # noqa: PLC0415 - loads llama.cpp

    name = "golden vectors"
    try:
        with ScorerRunner(
            arguments.file, arguments.adapter, head=arguments.head, n_ctx=n_ctx, parallel=2
        ) as runner:
            runner.check_golden()
            count = len(runner.scorer.adapter.golden)
    except ConfigError as error:
        return Finding(name=name, verdict="fail", detail=str(error))
    return Finding(
        name=name, verdict="pass", detail=f"{count} problems get the scores that the adapter expects"
    )


def _catalog(path: Path) -> Catalog:
    return read_catalog(path) if path.exists() else Catalog(default=None, models=())


def _relative(file: Path, catalog: Path) -> str:
    base, full = catalog.resolve().parent, file.resolve()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else full.as_posix()


def _wishes(arguments: argparse.Namespace, facts: "ModelFacts") -> "Wishes":
    from adyton_enclave.engine import EngineConfig  # noqa: PLC0415 - loads llama.cpp
    from adyton_models.suitability import Wishes  # noqa: PLC0415 - loads llama.cpp

    n_ctx = arguments.n_ctx or facts.default_n_ctx
    cells = n_ctx * arguments.sequences if arguments.sequences else max(n_ctx, _SHARED_CELLS)
    return Wishes(
        n_ctx=n_ctx,
        license=arguments.license,
        generates=not arguments.only_embeddings,
        embeddings=arguments.embeddings or arguments.only_embeddings,
        config=EngineConfig(n_ctx_total=cells),
    )


def _content(path: Path, size_bytes: int) -> "ModelContent":
    if size_bytes < _BAR_FROM_BYTES:
        return read_files(path).content
    bar = ProgressBar("hash")
    content = read_files(path, bar.update).content
    bar.close()
    return content


def _try(
    arguments: argparse.Namespace,
    facts: "ModelFacts",
    wishes: "Wishes",
    entry: Entry,
    findings: Sequence["Finding"],
) -> _Report:
    from adyton_models.suitability import Finding, judge_trial, memory_of  # noqa: PLC0415 - as above
    from adyton_models.trial import run_trial  # noqa: PLC0415 - as above

    memory = memory_of(facts, wishes)
    refused = any(finding.verdict == "fail" for finding in findings)
    if arguments.no_trial or refused:
        why = "--no-trial" if arguments.no_trial else "the file alone says that it cannot be served"
        return _Report(
            findings=[*findings, Finding(name="trial load", verdict="skip", detail=why)],
            memory=memory,
            trial=None,
        )
    if not arguments.json:
        print(f"loading {arguments.file.name} and decoding a few tokens ...", file=sys.stderr)
    trial = run_trial(
        {
            "paths": [str(path) for path in facts.paths],
            "content": entry.content,
            "weights": entry.weights,
            "n_ctx": wishes.n_ctx,
            "n_ctx_total": wishes.config.n_ctx_total,
            "generates": wishes.generates,
            "embeddings": wishes.embeddings,
        }
    )
    judged = judge_trial(trial, memory, generates=wishes.generates)
    if arguments.adapter is not None:
        judged = [*judged, _judge_scorer(arguments, wishes.n_ctx)]
    return _Report(findings=[*findings, *judged], memory=memory, trial=trial)


def _document(entry: Entry, report: _Report, *, added: bool) -> dict[str, Any]:
    return {
        "added": added,
        "servable": report.served,
        "entry": asdict(entry),
        "identity": _identity(entry),
        "checks": [asdict(finding) for finding in report.findings],
        "memory": report.memory.as_json(),
        "trial": report.trial,
    }


def _identity(entry: Entry) -> str:
    return identity_of(entry.content, entry.n_ctx, entry.sampling, scorer=entry.scorer_parts)


def _print(entry: Entry, report: _Report, *, added: bool, is_default: bool, catalog: Path) -> None:
    width = max(len(finding.name) for finding in report.findings)
    for finding in report.findings:
        print(f"{_MARKS[finding.verdict]}  {finding.name:{width}}  {finding.detail}")
    sample = (report.trial or {}).get("sample")
    if sample:
        # What a model writes is shown as it is, but for what would move a terminal's cursor.
        print(f"      it wrote: {''.join(c if c.isprintable() else ' ' for c in sample)[:100]}")
    if not report.served:
        print("not added: see what failed above")
    elif not added:
        print("it can be served; nothing was changed (--dry-run)")
    else:
        print(f"{entry.name}: {entry.file}, identity {_identity(entry)}")
        if entry.role == "scorer":
            print(f"let it judge: adyton-models add GENERATOR.gguf --name GENERATOR --scorer {entry.name}")
            return
        print(f"serve it: {up_command(catalog, None if is_default else entry.name)}")


def run_remove(arguments: argparse.Namespace) -> int:
    """Take an entry out."""
    catalog = read_catalog(arguments.catalog)
    entry = catalog.entry(arguments.name)
    changed = without_entry(catalog, arguments.name)
    write_catalog(changed, arguments.catalog)
    judged = [other.name for other in changed.models if other.scorer == entry.name]
    if arguments.json:
        print(json.dumps({"removed": asdict(entry), "default": changed.default, "judged": judged}))
        return 0
    print(f"removed {entry.name}; its file stays: {entry.file}")
    for name in judged:
        print(f"{name} names it as its scorer and cannot be served so: add {name} again, or {entry.name}")
    if catalog.default == entry.name:
        print("no model is the default now: name one with --model, or with add --default")
    return 0
