# SPDX-License-Identifier: Apache-2.0
"""Algebra in a child process: what is put to it, and that it can be killed, with a stand-in and with math-verify."""

import importlib.util
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adyton_models.answers import find_answer, right_answers
from adyton_models.cli import main
from adyton_models.math_verify import CHILD, MAX_STARTS_IN_VAIN, MathVerify
from adyton_protocol.answers import Answer
from adyton_protocol.errors import ConfigError

STAND_IN = '''\
"""Finds answers equal that have the same letters; misbehaves when told to."""
import json, os, signal, subprocess, sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "a") as log:
    log.write(f"start {os.getpid()}\\n")
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    pair = json.loads(line)
    expected, found = pair["expected"], pair["found"]
    with open(sys.argv[1], "a") as log:
        log.write(f"pair {found}\\n")
    if found == "h+h":
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        with open(sys.argv[1], "a") as log:
            log.write(f"start {child.pid}\\n")
        signal.pause()
    if found == "d+d":
        os._exit(1)
    if found == "n+n":
        print("nonsense", flush=True)
    elif found == "m+m":
        print("[" * 1000, end="", flush=True)
        signal.pause()
    else:
        print(json.dumps({"same": sorted(expected) == sorted(found)}), flush=True)
'''


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    """The stand-in's command line; its log is `log` beside it."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return [sys.executable, "-I", str(script), str(tmp_path / "log")]


@pytest.fixture
def algebra(program: list[str]) -> Iterator[MathVerify]:
    """With the stand-in, and time enough."""
    with MathVerify(program, pair_timeout_s=60.0) as found:
        yield found


def answered(text: str) -> Answer:
    """An answer, as a completion states it."""
    found = find_answer(rf"So it is \boxed{{{text}}}.")
    assert found is not None
    return found


def logged(program: list[str], what: str) -> list[str]:
    """What the stand-in wrote down under a heading."""
    log = Path(program[-1])
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(what)]


def ends(pid: int) -> bool:
    """Whether a process that was killed has ended, or does within a minute; the kernel says when."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], 60.0)[0])
    finally:
        os.close(watched)


def test_only_what_algebra_could_settle_is_asked_and_only_once(
    algebra: MathVerify, program: list[str]
) -> None:
    """Equal keys, rationals, options and words are settled without it; one of each class is asked about."""
    assert algebra("x+1", answered("1+x"))
    for expected, found in [
        ("x+1", "x + 1"), ("7", "8"), ("1/3", "0.3333333"), ("(B)", "(C)"), ("listen", "silent"), ("Paris", "x+y"),
    ]:  # fmt: skip
        assert algebra(expected, answered(found)) == (found == "x + 1")
    answers = [answered(each) for each in ("x+2", "2+x", "x + 2", "2+x", "2 + x", "3-x")]
    assert right_answers("x+2", answers, algebra) == (True, True, True, True, True, False)
    assert right_answers("x+2", answers, algebra) == (True, True, True, True, True, False)
    assert logged(program, "pair") == ["1+x", "2+x", "3-x"]
    assert (algebra.asked, algebra.gave_up) == (3, 0)


def test_nothing_is_started_before_it_is_needed(program: list[str]) -> None:
    """Exact equality is the common case."""
    with MathVerify(program) as algebra:
        assert algebra("1/2", answered("0.5"))
    assert logged(program, "start") == []


def test_a_comparison_that_hangs_is_killed_with_all_that_it_started(program: list[str]) -> None:
    """It counts as different, SIGTERM or not, and the next pair finds a new child."""
    with MathVerify(program, pair_timeout_s=3.0) as algebra:
        assert not algebra("x+1", answered("h+h"))
        started = [int(pid) for pid in logged(program, "start")]
        assert all(ends(pid) for pid in started)
        assert algebra("x+1", answered("1+x"))
        assert len(logged(program, "start")) == len(started) + 1
        assert (algebra.asked, algebra.gave_up) == (2, 1)
        # And it is remembered: what hung once is not tried again.
        assert not algebra("x+1", answered("h+h"))
        assert algebra.asked == 2


@pytest.mark.parametrize("how", ["d+d", "n+n", "m+m"])
def test_a_child_that_dies_or_talks_nonsense_is_replaced(
    algebra: MathVerify, program: list[str], how: str
) -> None:
    """Its pair counts as different; a line without end is not waited for."""
    assert not algebra("x+1", answered(how))
    assert algebra("x+1", answered("1+x"))
    assert len(logged(program, "start")) == 2
    assert algebra.gave_up == 1


def test_nothing_outlives_the_one_who_asked(program: list[str]) -> None:
    """Leaving the block kills the child."""
    with MathVerify(program) as algebra:
        assert algebra("x+1", answered("1+x"))
    (pid,) = logged(program, "start")
    assert ends(int(pid))
    algebra.close()


@pytest.mark.parametrize("command", [["/does/not/exist"], [sys.executable, "-c", "print('not ready')"]])
def test_a_program_that_never_gets_ready_is_the_operators_to_mend(command: list[str]) -> None:
    """After a few attempts it is said, instead of calling every answer different."""
    with MathVerify(command) as algebra, pytest.raises(ConfigError, match="math-verify"):
        algebra("x+1", answered("1+x"))
    assert MAX_STARTS_IN_VAIN > 1


def test_the_child_inherits_no_environment(tmp_path: Path) -> None:
    """Tokens and paths of the operator are none of its business."""
    script = tmp_path / "env.py"
    script.write_text(
        "import json, os, sys\nprint(json.dumps({'ready': set(os.environ) <= {'PATH', 'OPENBLAS_NUM_THREADS',"
        " 'LC_CTYPE'}}), flush=True)\nsys.stdin.readline()\nprint(json.dumps({'same': True}), flush=True)"
    )
    assert "HOME" in os.environ or os.environ
    with MathVerify([sys.executable, "-I", str(script)]) as algebra:
        assert algebra("x+1", answered("1+x"))


def test_math_verify_itself_knows_algebra() -> None:
    """The real child, where the extra is installed."""
    pytest.importorskip("math_verify", reason="the extra 'math' is not installed")
    MathVerify.check_installed()
    with MathVerify(CHILD) as algebra:
        for expected, found in [
            (r"2\sqrt{2}", r"\sqrt{8}"), ("(x+1)^2", "x^2+2x+1"), (r"\frac{\pi}{2}", r"0.5\pi"), ("0.5", r"50\%"),
        ]:  # fmt: skip
            assert algebra(expected, answered(found)), (expected, found)
        for expected, found in [(r"\sqrt{2}", r"\sqrt{3}"), ("x+1", "x+2"), ("x", "((((")]:
            assert not algebra(expected, answered(found)), (expected, found)
        assert not algebra("9^{9^{9^9}}", answered("x^{x^{9^{9^9}}}"))


def test_without_the_extra_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    """And does so before anything is measured."""
    if importlib.util.find_spec("math_verify") is not None:
        MathVerify.check_installed()
        pytest.skip("the extra 'math' is installed")
    with pytest.raises(ConfigError, match="extra 'math'"):
        MathVerify.check_installed()
    assert main(["eval", "--n", "1", "--equivalence", "math-verify"]) == 2
    assert "extra 'math'" in capsys.readouterr().err
