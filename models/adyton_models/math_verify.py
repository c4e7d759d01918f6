# SPDX-License-Identifier: Apache-2.0
r"""Comparing answers by math-verify, which knows algebra: ``2\sqrt{2}`` is ``\sqrt{8}``.

Optional, and never in the enclave. It computes with whatever it is given, relies on ``signal.alarm`` (so it raises
outside of a main thread), and may take for ever. So it runs in a child process that is killed when it does not answer
in time, which counts as different.

Some questions are not put to it. Two rationals were compared exactly already, and it would round them. Words it takes
for products of their letters, so that *listen* would equal *silent*.
"""

import contextlib
import importlib.util
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from adyton_models.answers import same_answer
from adyton_protocol.answers import Answer, AnswerRule, read_answer
from adyton_protocol.errors import ConfigError

CHILD: Final = (sys.executable, "-I", "-m", "adyton_models.math_verify_child")
READY: Final = "ready"
START_TIMEOUT_S: Final = 120.0
"""To import sympy on a busy machine."""
PAIR_TIMEOUT_S: Final = 10.0
"""For one comparison; most take some 13 ms. Longer than the child's own alarms, which are tried first."""
MAX_REPLY_BYTES: Final = 256
MAX_STARTS_IN_VAIN: Final = 3
MAX_REMEMBERED: Final = 100_000

_WHOLE: Final = AnswerRule(extract="whole")
_WORD: Final = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,}|[^\W\d_a-zA-Z]{2,}")
_FUNCTIONS: Final = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "inf", "pi", "mod"}
)


class MathVerify:
    """A child process that compares answers, started when first needed and again when it was killed.

    Not for more than one thread.

    Attributes:
        asked: Pairs that the child compared or gave up on.
        gave_up: Of these, how many it did not answer in time, or died of.
    """

    def __init__(
        self,
        command: Sequence[str] = CHILD,
        *,
        pair_timeout_s: float = PAIR_TIMEOUT_S,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        """Start nothing yet.

        Args:
            command: A program that writes ``{"ready": true}``, then answers each line ``{"expected": …, "found": …}``
                with ``{"same": …}``.
            pair_timeout_s: Seconds after which a comparison is killed.
            start_timeout_s: Seconds within which the program has to be ready.
        """
        self._command = tuple(command)
        self._pair_timeout_s = pair_timeout_s
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._in_vain = 0
        self._remembered: dict[tuple[str, str], bool] = {}
        self.asked = 0
        self.gave_up = 0

    @staticmethod
    def check_installed() -> None:
        """Refuse to begin where math-verify is not there.

        Raises:
            ConfigError: It is not installed.
        """
        if importlib.util.find_spec("math_verify") is None:
            raise ConfigError(
                "--equivalence math-verify needs the extra 'math': python -m pip install --editable '.[math]'"
            )

    def __call__(self, expected: str, found: Answer) -> bool:
        """Whether an answer is the reference: exactly, or else by math-verify.

        Raises:
            ConfigError: The child cannot be started.
        """
        if same_answer(expected, found):
            return True
        wanted = read_answer(expected, _WHOLE)
        if wanted is None or not _worth_asking(wanted.key, found.key):
            return False
        pair = (expected, found.key)
        if pair not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[pair] = self._ask(expected, found.shown)
        return self._remembered[pair]

    def _ask(self, expected: str, found: str) -> bool:
        process = self._started()
        self.asked += 1
        line = json.dumps({"expected": expected, "found": found}).encode() + b"\n"
        try:
            if process.stdin is not None:
                process.stdin.write(line)
                process.stdin.flush()
        except OSError:
            reply = None
        else:
            reply = _reply(process, self._pair_timeout_s)
        same = None if reply is None else reply.get("same")
        if not isinstance(same, bool):
            # Too slow, dead, or talking nonsense: the next pair gets a new one.
            self.gave_up += 1
            self.close()
            return False
        self._in_vain = 0
        return same

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        while self._in_vain < MAX_STARTS_IN_VAIN:
            self._in_vain += 1
            try:
                # A group of its own, so that nothing it may start outlives it; and none of our environment.
                self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    env={"PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
                )
            except OSError as error:
                raise ConfigError(f"math-verify cannot be started: {error.strerror}") from error
            ready = _reply(self._process, self._start_timeout_s)
            if ready is not None and ready.get(READY) is True:
                return self._process
            self.close()
        raise ConfigError(
            f"math-verify did not come up in {MAX_STARTS_IN_VAIN} attempts; try: {' '.join(self._command)}"
        )

    def close(self) -> None:
        """Kill the child, if there is one, and whatever it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                # What it was sent and never read cannot be flushed any more.
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _reply(process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, object] | None:
    """One line of JSON from the child, or None when there is none in time. It may be anything."""
    if process.stdout is None:
        return None
    deadline = time.monotonic() + timeout_s
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if len(line) > MAX_REPLY_BYTES or not selector.select(deadline - time.monotonic()):
                return None
            piece = os.read(process.stdout.fileno(), MAX_REPLY_BYTES)
            if not piece:
                return None
            line += piece
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def _worth_asking(wanted: str, found: str) -> bool:
    """Whether algebra could find two classes to be one."""
    kinds = {key.partition(":")[0] for key in (wanted, found)}
    if kinds <= {"number"} or kinds & {"choice", "json"}:
        return False
    words = {word for key in (wanted, found) for word in _WORD.findall(key.partition(":")[2])}
    return words <= _FUNCTIONS
