# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: collects the tests once, then runs them against one mutant after the other in forked children.

First every test runs unmutated, and the functions of the mutated package that it enters are noted with its duration:
that is the mapping from functions to tests, measured instead of kept by hand. For each mutant a child is forked, gives
the one function its faulty code in place (``__code__``, so that every importer gets it), and runs the tests that enter
that function, the likeliest to notice and the quickest first, until one fails. No file is written to. What cannot be
exchanged this way (constants of modules, fields of classes, defaults of arguments) is left to ``run_mutants.py``.

Used by ``run_mutants.py`` alone; the plan comes in the environment variable ``ADYTON_MUTANTS`` as a JSON file's path.
"""

import functools
import inspect
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from mutants import Mutant, mutants, mutated

PLAN: Final = "ADYTON_MUTANTS"
KILLED, SURVIVED, UNPATCHED = 1, 0, 3
_SLACK_S: Final = 20.0
_PATIENCE: Final = 8.0
_POLL_S: Final = 0.002
_QUICK_S: Final = 1.0


@dataclass
class Profile:
    """What the unmutated run has shown."""

    entered: dict[str, set[int]] = field(default_factory=dict)
    """``file:function`` to the indices of the tests that enter it."""
    duration_s: dict[int, float] = field(default_factory=dict)
    noticed: dict[int, int] = field(default_factory=dict)
    """How many mutants of the current module each test has noticed; those go first."""

    def tests(self, function: str) -> list[int]:
        """Return the tests that enter a function, the likeliest to notice and the quickest first."""
        return sorted(
            self.entered.get(function, ()),
            key=lambda index: (-self.noticed.get(index, 0), self.duration_s[index]),
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Replace pytest's loop over the tests."""
    plan = json.loads(Path(os.environ[PLAN]).read_text())
    root = Path(plan["root"])
    profile = _profile(session, str(root))
    if session.testsfailed:
        return True
    Path(plan["profile"]).write_text(json.dumps(_for_others(session, profile, root)))
    if not _control(session, profile):
        session.testsfailed += 1
        return True
    current = ""
    with Path(plan["results"]).open("a") as results:
        for module, key, mutant in _planned(plan, root):
            if module != current:
                current = module
                profile.noticed.clear()
            verdict, by = _judge(session, profile, root, module, mutant)
            line = {"module": module, "name": mutant.name, "key": key, "verdict": verdict, "by": by}
            results.write(json.dumps(line) + "\n")
            results.flush()
            print(f"{verdict:9} {module} {mutant.line} {mutant.name}", file=sys.stderr, flush=True)
    return True


def _planned(plan: dict[str, Any], root: Path) -> Iterator[tuple[str, str, Mutant]]:
    for module, wanted in plan["warm"].items():
        for mutant in mutants((root / module).read_text()):
            if mutant.name in wanted:
                yield module, wanted[mutant.name], mutant


def _profile(session: pytest.Session, prefix: str) -> Profile:
    """Run every test once, unmutated; session fixtures stay for the children to share."""
    profile = Profile()
    codes: dict[types.CodeType, str] = {}
    for index, item in enumerate(session.items):
        seen: set[types.CodeType] = set()

        def note(frame: types.FrameType, event: str, _: object, seen: set[types.CodeType] = seen) -> None:
            if event == "call" and frame.f_code not in seen:
                seen.add(frame.f_code)

        following = session.items[(index + 1) % len(session.items)]
        begun_s = time.perf_counter()
        sys.setprofile(note)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        sys.setprofile(None)
        profile.duration_s[index] = time.perf_counter() - begun_s
        for code in seen:
            if code not in codes:
                inside = code.co_filename.startswith(prefix)
                owner = code.co_qualname.partition(".<locals>")[0]
                codes[code] = f"{Path(code.co_filename).relative_to(prefix)}:{owner}" if inside else ""
            if codes[code]:
                profile.entered.setdefault(codes[code], set()).add(index)
        if session.testsfailed:
            print(f"FAILS UNMUTATED  {item.nodeid}", file=sys.stderr)
            break
    return profile


def _for_others(session: pytest.Session, profile: Profile, root: Path) -> dict[str, Any]:
    """What ``run_mutants.py`` needs: which files of tests enter a module, and which libraries were imported."""
    files: dict[str, dict[str, float]] = {}
    for function, indices in profile.entered.items():
        for index in indices:
            path = session.items[index].nodeid.partition("::")[0]
            times = files.setdefault(function.partition(":")[0], {})
            times[path] = times.get(path, 0.0) + 1.0
    libraries = [
        name
        for name, module in list(sys.modules.items())
        if "site-packages" in str(getattr(module, "__file__", None)) and "." not in name
    ]
    return {"files": files, "libraries": sorted(libraries), "root": str(root)}


def _control(session: pytest.Session, profile: Profile) -> bool:
    """Whether the tests pass in a forked child without a fault, so that a failure in one means something."""
    quick = [item for index, item in enumerate(session.items) if profile.duration_s[index] < _QUICK_S]
    with tempfile.TemporaryDirectory(prefix="adyton-mutant-") as scratch:
        child = os.fork()
        if not child:
            _child(session, quick, None, Path(scratch))
        status = wait(child, _SLACK_S + _PATIENCE * sum(profile.duration_s.values()))
        if status != 0:
            by = Path(scratch) / "by"
            print(f"FAILS IN A CHILD  {by.read_text() if by.is_file() else status}", file=sys.stderr)
    return status == 0


def _judge(
    session: pytest.Session, profile: Profile, root: Path, module: str, mutant: Mutant
) -> tuple[str, str | None]:
    indices = profile.tests(f"{module}:{mutant.owner}")
    if not indices:
        return "survived", None
    budget_s = _SLACK_S + _PATIENCE * sum(profile.duration_s[index] for index in indices)
    with tempfile.TemporaryDirectory(prefix="adyton-mutant-") as scratch:
        report = Path(scratch) / "by"
        child = os.fork()
        if not child:
            fault = (root / module, mutant)
            _child(session, [session.items[index] for index in indices], fault, Path(scratch))
        status = wait(child, budget_s)
        shutil.rmtree(Path(scratch) / "tmp", ignore_errors=True)
        by = report.read_text() if report.is_file() else None
    for index in indices:
        if session.items[index].nodeid == by:
            profile.noticed[index] = profile.noticed.get(index, 0) + 1
    if status is None:
        return "timeout", None
    if os.WIFSIGNALED(status):
        return "killed", f"signal {os.WTERMSIG(status)}"
    return {KILLED: "killed", SURVIVED: "survived"}.get(os.WEXITSTATUS(status), "unpatched"), by


def wait(child: int, budget_s: float) -> int | None:
    """Wait for a child; None when it had to be stopped."""
    end_s = time.monotonic() + budget_s
    while time.monotonic() < end_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(_POLL_S)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(
    session: pytest.Session, items: list[pytest.Item], fault: tuple[Path, Mutant] | None, scratch: Path
) -> None:
    """Become the mutant and run the tests; never returns."""
    code = UNPATCHED
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, session.config.get_terminal_writer()._file.fileno())
        os.dup2(silence, 2)
        (scratch / "tmp").mkdir()
        session.config._tmp_path_factory._basetemp = scratch / "tmp"  # type: ignore[attr-defined]
        if fault is not None:
            patch(*fault)
        code = SURVIVED
        session._setupstate.teardown_exact(items[0])
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                (scratch / "by").write_text(item.nodeid)
                code = KILLED
                break
    except LookupError:
        pass
    except BaseException:  # noqa: BLE001 - whatever ends the run of a mutant was caused by it
        code = KILLED if code == SURVIVED else UNPATCHED
    finally:
        os._exit(code)


def patch(path: Path, mutant: Mutant) -> None:
    """Give a function of a loaded module its faulty code.

    Raises:
        LookupError: There is no such function, or its code cannot be exchanged.
    """
    module = next(
        (found for found in list(sys.modules.values()) if getattr(found, "__file__", None) == str(path)), None
    )
    if module is None:
        raise LookupError(path)
    function = _function(module, mutant.owner)
    code = compile(mutated(path.read_text(), mutant), str(path), "exec")
    found = _code(code, mutant.owner, function.__code__.co_firstlineno)
    try:
        function.__code__ = found
    except ValueError as cause:
        raise LookupError(mutant.owner) from cause


def _function(module: types.ModuleType, owner: str) -> types.FunctionType:
    found: Any = module
    for part in owner.split("."):
        found = inspect.getattr_static(found, part)
    match found:
        case property():
            found = found.fget
        case classmethod() | staticmethod():
            found = found.__func__
        case functools.cached_property():
            found = found.func
        case _:
            pass
    found = inspect.unwrap(found)
    if not isinstance(found, types.FunctionType):
        raise LookupError(owner)  # noqa: TRY004 - not found is not found
    return found


def _code(code: types.CodeType, owner: str, line: int) -> types.CodeType:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_qualname == owner and constant.co_firstlineno == line:
                return constant
            if owner.startswith(constant.co_qualname + "."):
                return _code(constant, owner, line)
    raise LookupError(owner)
