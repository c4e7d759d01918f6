# SPDX-License-Identifier: Apache-2.0
"""How the command line speaks: answers on standard output, everything about them on standard error.

Colour only on a terminal and only without ``NO_COLOR`` (https://no-color.org). Words of a model are stripped
of control characters before they reach a terminal.
"""

import json
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Final, Literal, Protocol, TextIO

from adyton.simulation import SIMULATED_BANNER

Style = Literal["bold", "green", "red", "yellow", "dim"]
_CODES: Final[Mapping[Style, str]] = {"bold": "1", "green": "32", "red": "31", "yellow": "33", "dim": "2"}
_VERDICT_STYLES: Final[Mapping[str, Style]] = {"pass": "green", "fail": "red", "skip": "yellow"}
_BANNER_COLUMNS: Final = 76


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
