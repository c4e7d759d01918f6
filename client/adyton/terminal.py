# SPDX-License-Identifier: Apache-2.0
"""How the command line speaks: answers on standard output, everything about them on standard error.

Colour only on a terminal and only without ``NO_COLOR`` (https://no-color.org). Words of a model are stripped
of control characters before they reach a terminal.
"""

import json
import os
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final, Literal, Protocol, TextIO

Style = Literal["bold", "green", "red", "yellow", "dim"]
SIMULATED_BANNER: Final = (
    "SIMULATED: this appliance runs outside any hardware enclave. "
    "Whoever runs it can read every prompt and every answer."
)
"""What the command line says at every use of a simulated appliance."""

_CODES: Final[Mapping[Style, str]] = {"bold": "1", "green": "32", "red": "31", "yellow": "33", "dim": "2"}
_VERDICT_STYLES: Final[Mapping[str, Style]] = {"pass": "green", "fail": "red", "skip": "yellow"}
_BANNER_COLUMNS: Final = 76
_CUT: Final = "..."
_INDENT: Final = " " * 11
_RULE_COLUMNS: Final = 96


class CheckLike(Protocol):
    """One line of a verification: the checks of an appraisal, and those of a receipt."""

    @property
    def number(self) -> int:
        """Its place."""
        ...

    @property
    def name(self) -> str:
        """What is checked."""
        ...

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``skip``."""
        ...

    @property
    def detail(self) -> str:
        """What was found, in plain language."""
        ...


def paint(text: str, style: Style, stream: TextIO) -> str:
    """Colour ``text`` if ``stream`` is a terminal whose user does not mind."""
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def printable(text: str) -> str:
    """Drop control characters other than line ends and tabs: an answer must not steer the terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def one_line(text: str, columns: int) -> str:
    """Show words of unknown origin in one line of at most ``columns`` columns, without anything that steers.

    SECURITY: line ends would let the words pretend to be lines of ours, and marks that combine would pile up on them.
    """
    spaced = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text))
    # Words are split after marks are gone, which may leave spaces alone, and composed again, which marks may have kept
    # apart: what is shown stays as it is when it is shown again.
    bare = unicodedata.normalize("NFC", "".join(c for c in spaced if not unicodedata.combining(c)))
    shown = " ".join(bare.split())
    ends = list(accumulate(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown))
    if not ends or ends[-1] <= columns:
        return shown
    kept = sum(end <= columns - len(_CUT) for end in ends)
    return shown[:kept] + _CUT


def say(text: str = "", stream: TextIO | None = None) -> None:
    """Write a line, by default to standard error, and flush it."""
    print(text, file=stream or sys.stderr, flush=True)


def write(text: str) -> None:
    """Write a piece of an answer to standard output at once."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def emit_json(document: object) -> None:
    """Write the machine-readable result to standard output."""
    say(json.dumps(document, indent=2, ensure_ascii=False), sys.stdout)


def announce_simulation(stream: TextIO | None = None) -> None:
    """Print the banner that nobody can overlook."""
    target = stream or sys.stderr
    edge = "!" * _BANNER_COLUMNS
    lines = textwrap.wrap(SIMULATED_BANNER, _BANNER_COLUMNS - 6)
    for line in (edge, *(f"!! {line:<{_BANNER_COLUMNS - 6}} !!" for line in lines), edge):
        say(paint(line, "yellow", target), target)


def print_checks(checks: Iterable[CheckLike], stream: TextIO) -> None:
    """Print each check on a line of its own: number, verdict, name, what was found."""
    lines = tuple(checks)
    width = max((len(check.name) for check in lines), default=0)
    for check in lines:
        verdict = paint(check.verdict, _VERDICT_STYLES.get(check.verdict, "dim"), stream)
        say(f"{check.number:>3}  {verdict}  {check.name:<{width}}  {printable(check.detail)}", stream)


class ExplainedLike(CheckLike, Protocol):
    """A check with the rule that it was held to."""

    @property
    def question(self) -> str:
        """What it asks."""
        ...

    @property
    def rules(self) -> tuple[str, ...]:
        """What it was held to."""
        ...


def print_explained(checks: Iterable[ExplainedLike], stream: TextIO, *, brief: bool = False) -> None:
    """Print each check as :func:`print_checks` does, and below it its question and its rules.

    Args:
        checks: What was checked.
        stream: Where to.
        brief: No question and no rules below a check that passed.
    """
    lines = tuple(checks)
    width = max((len(check.name) for check in lines), default=0)
    for check in lines:
        verdict = paint(check.verdict, _VERDICT_STYLES.get(check.verdict, "dim"), stream)
        say(f"{check.number:>3}  {verdict}  {check.name:<{width}}  {printable(check.detail)}", stream)
        if brief and check.verdict == "pass":
            continue
        rule = f"{check.question} Rule: {printable('; '.join(check.rules))}"
        for line in textwrap.wrap(rule, _RULE_COLUMNS, break_long_words=False, break_on_hyphens=False):
            say(paint(f"{_INDENT}{line}", "dim", stream), stream)


class ProgressLine:
    """One line on a terminal that is written over until it is cleared; silent where nobody watches."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Use ``stream``, by default standard error."""
        self._stream = sys.stderr if stream is None else stream
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{one_line(text, _BANNER_COLUMNS)}")
            self._stream.flush()
            self._shown = True

    def clear(self) -> None:
        """Take the line away, if there is one."""
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._shown = False
