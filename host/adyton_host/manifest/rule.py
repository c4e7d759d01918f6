# SPDX-License-Identifier: Apache-2.0
"""What a rule of the linter is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adyton_host.manifest.view import View

Check = Callable[[View], Iterable[str]]
"""Says what in a manifest breaks a rule; nothing where it is kept."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that a production manifest must not do.

    Attributes:
        name: Stable; scripts may go by it.
        reason: What an attacker, or an accident, could make of it.
        check: Finds it.
    """

    name: str
    reason: str
    check: Check


def must_not_be(name: str, option: str, value: object, reason: str) -> Rule:
    """An option that must not have this very value; leaving it out is right."""

    def check(manifest: View) -> Iterable[str]:
        if manifest.option(option) == value:
            yield f"{option} = {_shown(value)}"

    return Rule(name, reason, check)


def must_be(name: str, option: str, value: object, reason: str) -> Rule:
    """An option that must be there with this very value."""

    def check(manifest: View) -> Iterable[str]:
        found = manifest.option(option)
        if found != value:
            yield f"{option} is {_shown(found)}, not {_shown(value)}"

    return Rule(name, reason, check)


def must_be_absent(name: str, options: tuple[str, ...], reason: str) -> Rule:
    """Options that must not be there at all."""

    def check(manifest: View) -> Iterable[str]:
        yield from (f"{option} is set" for option in options if manifest.option(option) is not None)

    return Rule(name, reason, check)


def _shown(value: object) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case _:
            return str(value)
