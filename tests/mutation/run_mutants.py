# SPDX-License-Identifier: Apache-2.0
"""Mutation testing of the verifier: put one small fault into it after the other, and demand that a test notices.

A run works on a copy of the tree, so that it may be edited meanwhile, and puts faults in in memory alone. Faults
inside functions are tried by ``warm_mutants.py`` (one pytest session, a forked child for each); faults in what runs
at import are tried here, each in a forked process that imports the faulty module before anybody else does.

Results are kept in ``build/mutants/results.jsonl``, and a run goes on where the last one stopped: a fault that was
noticed is not tried again while the function around it is the same. What nobody notices must be listed in
``survivors.toml`` beside this file with the reason why that is right; otherwise the run fails.

Usage: ``python tests/mutation/run_mutants.py [--module PART] [--fresh] [--list]``
"""

import argparse
import ast
import fnmatch
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from mutants import Mutant, mutants, mutated

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "promises"))

from prove import copy_tree

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = Path("attestation") / "adyton_attestation"
HERE: Final = Path(__file__).parent
STATE: Final = Path(os.environ.get("ADYTON_MUTANTS_STATE", ROOT / "build" / "mutants"))
SETTINGS: Final = HERE / "mutation.toml"
SURVIVORS: Final = HERE / "survivors.toml"
COLD_LIMIT_S: Final = 300
_PYTEST: Final = (
    "-q",
    "-x",
    "--timeout=0",
    "-p",
    "no:cacheprovider",
    "-m",
    "not slow and not network and not sgx",
)


def targets() -> list[str]:
    """Return the modules that are mutated, as paths below the repository root."""
    found = sorted((ROOT / PACKAGE).rglob("*.py"))
    return [str(path.relative_to(ROOT)) for path in found if "simulation" not in path.parts]


def all_mutants(module: str) -> list[tuple[Mutant, str]]:
    """Return the mutants of a module, each with a digest of the code that it is in."""
    source = (ROOT / module).read_text()
    tree = ast.parse(source)
    functions = dict(_functions(tree, ()))
    whole = ast.dump(tree)
    return [
        (mutant, hashlib.sha256(functions.get(mutant.owner, whole).encode()).hexdigest()[:16])
        for mutant in mutants(source)
    ]


def _functions(node: ast.AST, path: tuple[str, ...]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append((".".join((*path, child.name)), ast.dump(child)))
        elif isinstance(child, ast.ClassDef):
            found += _functions(child, (*path, child.name))
    return found


def survivors() -> dict[tuple[str, str], str]:
    """Return the reasons by module and mutant."""
    entries = tomllib.loads(SURVIVORS.read_text()).get("survivor", [])
    return {(entry["module"], name): entry["reason"] for entry in entries for name in entry["mutants"]}


def known_results() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the newest result of each mutant."""
    path = STATE / "results.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(entry["module"], entry["name"]): entry for entry in map(json.loads, lines)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 1 when a mutant survives without a reason."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--module", action="append", help="only modules whose path contains this; may be repeated"
    )
    parser.add_argument("--fresh", action="store_true", help="try everything again")
    parser.add_argument(
        "--retry", action="store_true", help="try again what survived, also what has a reason"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--report", action="store_true", help="print what is known and stop")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    parts = arguments.module or [""]
    # In the order of the arguments, so that what is worked on comes first.
    chosen = list(dict.fromkeys(module for part in parts for module in targets() if part in module))
    if arguments.list:
        for module in chosen:
            for mutant, _ in all_mutants(module):
                print(f"{module}:{mutant.line}: {mutant.name}")
        return 0
    STATE.mkdir(parents=True, exist_ok=True)
    if arguments.fresh and not arguments.inside:
        (STATE / "results.jsonl").unlink(missing_ok=True)
    if arguments.inside:
        return _run(chosen, retry=arguments.retry)
    if not arguments.report and any(_to_do(chosen, retry=arguments.retry)):
        with tempfile.TemporaryDirectory(prefix="adyton-mutants-") as scratch:
            copy_tree(Path(scratch))
            given = sys.argv[1:] if argv is None else list(argv)
            status = subprocess.run(
                [
                    str(Path(scratch) / ".venv" / "bin" / "python"),
                    "tests/mutation/run_mutants.py",
                    *given,
                    "--inside",
                ],
                cwd=scratch,
                env=os.environ | {"ADYTON_MUTANTS_STATE": str(STATE)},
                check=False,
            ).returncode
        if status:
            return status
    return report(sorted(chosen))


def _run(chosen: list[str], *, retry: bool) -> int:
    """Try what is to be tried, in this tree."""
    for modules, tests in groups(chosen):
        warm, cold = _to_do(modules, retry=retry)
        if not warm and not cold:
            continue
        if not _run_warm(warm, tests):
            print("the tests fail without any mutant")
            return 2
        # What turned out not to be exchangeable in a running process is tried at import.
        _, cold = _to_do(modules, retry=retry)
        _run_cold(cold, tests)
    return 0


Plan = dict[str, dict[str, str]]


def _to_do(chosen: list[str], *, retry: bool) -> tuple[Plan, Plan]:
    """Return what is to be tried in the running process and at import: name to digest, by module."""
    known, reasons = known_results(), survivors()
    warm: Plan = {}
    cold: Plan = {}
    for module in chosen:
        for mutant, key in all_mutants(module):
            result = known.get((module, mutant.name))
            same = result is not None and result["key"] == key
            if same and result is not None and result["verdict"] in {"killed", "timeout"}:
                continue
            if same and not retry and (module, mutant.name) in reasons:
                continue
            unpatched = same and result is not None and result["verdict"] == "unpatched"
            place = warm if mutant.owner and not unpatched else cold
            place.setdefault(module, {})[mutant.name] = key
    return warm, cold


def groups(chosen: list[str]) -> list[tuple[list[str], list[str]]]:
    """Return modules with the tests that are run against them, by the groups of ``mutation.toml``."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    settings = tomllib.loads(SETTINGS.read_text())["group"]
    for module in chosen:
        short = str(Path(module).relative_to(PACKAGE))
        group = next(g for g in settings if any(fnmatch.fnmatch(short, part) for part in g["modules"]))
        found.setdefault(group["name"], ([], group["tests"]))[0].append(module)
    return list(found.values())


def _run_warm(warm: Plan, tests: list[str]) -> bool:
    plan = {
        "root": str(ROOT),
        "warm": warm,
        "results": str(STATE / "results.jsonl"),
        "profile": str(STATE / "profile.json"),
    }
    (STATE / "plan.json").write_text(json.dumps(plan))
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *_PYTEST, "-p", "warm_mutants", *tests],
        cwd=ROOT,
        env=os.environ | {"ADYTON_MUTANTS": str(STATE / "plan.json"), "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    return done.returncode == 0


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from its mutated tree."""

    def __init__(self, name: str, path: Path, mutant: Mutant) -> None:
        self._name = name
        self._path = path
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(self._path))

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        tree = mutated(self._path.read_text(), self._mutant)
        exec(compile(tree, str(self._path), "exec"), module.__dict__)  # noqa: S102 - our own source


def _run_cold(cold: Plan, tests: list[str]) -> None:
    if not any(cold.values()):
        return
    profile = json.loads((STATE / "profile.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in profile["libraries"]:
            try:
                importlib.import_module(library)
            except Exception:  # noqa: BLE001, S112 - only to save time; what is missing is imported later
                continue
    with (STATE / "results.jsonl").open("a") as results:
        for module, wanted in cold.items():
            files = profile["files"].get(module, {})
            ordered = sorted(tests, key=lambda path: -files.get(path, 0.0))
            for mutant, key in all_mutants(module):
                if wanted.get(mutant.name) != key:
                    continue
                verdict = _cold(module, mutant, ordered)
                line = {"module": module, "name": mutant.name, "key": key, "verdict": verdict, "by": None}
                results.write(json.dumps(line) + "\n")
                results.flush()
                print(f"{verdict:9} {module} {mutant.line} {mutant.name}", file=sys.stderr, flush=True)


def _cold(module: str, mutant: Mutant, tests: list[str]) -> str:
    # Imported here: the plugin itself imports pytest, which the other commands need not wait for.
    from warm_mutants import KILLED, SURVIVED, wait  # noqa: PLC0415

    child = os.fork()
    if not child:
        code = KILLED
        try:
            import pytest  # noqa: PLC0415

            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            name = ".".join(Path(module).relative_to("attestation").with_suffix("").parts)
            sys.meta_path.insert(0, _Finder(name.removesuffix(".__init__"), ROOT / module, mutant))
            os.chdir(ROOT)
            code = SURVIVED if pytest.main([*_PYTEST, *tests]) == 0 else KILLED
        finally:
            os._exit(code)
    status = wait(child, COLD_LIMIT_S)
    if status is None:
        return "timeout"
    return "survived" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == SURVIVED else "killed"


def report(chosen: list[str]) -> int:
    """Print the state of each module; returns 1 when a mutant survives without a reason or was not tried."""
    known, reasons = known_results(), survivors()
    open_ones = 0
    print(f"{'module':52} {'mutants':>8} {'noticed':>8} {'reasoned':>9} {'open':>5}")
    for module in chosen:
        counts: Counter[str] = Counter()
        for mutant, key in all_mutants(module):
            result = known.get((module, mutant.name))
            verdict = result["verdict"] if result is not None and result["key"] == key else "not tried"
            if verdict in {"killed", "timeout"}:
                counts["noticed"] += 1
            elif verdict == "survived" and (module, mutant.name) in reasons:
                counts["reasoned"] += 1
            else:
                counts["open"] += 1
                print(f"  {verdict:9} line {mutant.line}: {mutant.name}")
        open_ones += counts["open"]
        print(
            f"{module:52} {counts.total():8} {counts['noticed']:8} {counts['reasoned']:9} {counts['open']:5}"
        )
    return 1 if open_ones else 0


if __name__ == "__main__":
    raise SystemExit(main())
