# SPDX-License-Identifier: Apache-2.0
"""What the doctor says about one thing."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One look at one thing.

    Attributes:
        name: What was looked at; stable, for programs.
        verdict: ``fail`` means that nothing starts before it is mended; ``warn`` that it starts and does worse than it
            could; ``skip`` that there was nothing to look at, or no need.
        detail: What was found.
        fix: What to do about it: a command to type, or what to change where; empty when all is well.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""


def passed(name: str, detail: str) -> Finding:
    """All is well."""
    return Finding(name=name, verdict="pass", detail=detail)


def warned(name: str, detail: str, fix: str = "") -> Finding:
    """It works, but."""
    return Finding(name=name, verdict="warn", detail=detail, fix=fix)


def failed(name: str, detail: str, fix: str = "") -> Finding:
    """Nothing starts with it."""
    return Finding(name=name, verdict="fail", detail=detail, fix=fix)


def skipped(name: str, detail: str) -> Finding:
    """Not looked at, and why."""
    return Finding(name=name, verdict="skip", detail=detail)
