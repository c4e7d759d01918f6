# SPDX-License-Identifier: Apache-2.0
"""Names of searches as people write them: `majority-16`, `rebase-8`, `weighted-16+beta`, `best-of-n-4/last`."""

import re
from dataclasses import dataclass
from typing import Final

from adyton_enclave.scaling.auto import method_of
from adyton_enclave.scaling.plan import (
    EXPERIMENTAL,
    NEEDS_SCORER,
    STOP_KINDS,
    STRATEGIES,
    Plan,
    StopKind,
    Strategy,
)
from adyton_enclave.scaling.strategies import MAX_N
from adyton_protocol.errors import ConfigError
from adyton_protocol.selection.aggregate import AGGREGATES, Aggregate
from adyton_protocol.selection.bounds import StopRule
from adyton_protocol.selection.candidate import METHODS, SelectionRule

_NAME: Final = re.compile(
    r"(?P<strategy>[a-z-]+?)(?:-(?P<n>[1-9][0-9]{0,3}))?(?:\+(?P<stop>[a-z]+))?(?:/(?P<how>[a-z]+))?"
)
_RULE: Final = SelectionRule(method="majority")
MEASURABLE: Final[tuple[Strategy, ...]] = tuple(each for each in STRATEGIES if each != "refine")
"""`refine` is for tasks whose output can be checked, which problems of a set are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One search.

    Attributes:
        strategy: Its strategy.
        n: Candidates, or width.
        stop: When a vote ends early.
        aggregate: How the scores of steps become one.
    """

    strategy: Strategy
    n: int = 1
    stop: StopKind = "none"
    aggregate: Aggregate = _RULE.aggregate

    def __str__(self) -> str:
        """As :func:`read_spec` reads it."""
        name = self.strategy if self.strategy == "single" else f"{self.strategy}-{self.n}"
        name = name if self.stop == "none" else f"{name}+{self.stop}"
        return name if self.aggregate == _RULE.aggregate else f"{name}/{self.aggregate}"

    @property
    def pooled(self) -> bool:
        """Whether it samples whole answers, so that a pool says what it would choose."""
        return self.strategy in METHODS

    @property
    def scored(self) -> bool:
        """Whether it needs a scorer."""
        return self.strategy in NEEDS_SCORER

    @property
    def rule(self) -> SelectionRule:
        """How it chooses."""
        return SelectionRule(method=method_of(self.strategy), aggregate=self.aggregate)

    @property
    def plan(self) -> Plan:
        """As the enclave runs it."""
        return Plan(
            strategy=self.strategy,
            n=self.n,
            rule=self.rule,
            stop=StopRule(kind=self.stop),
            experimental=self.strategy in EXPERIMENTAL,
        )


def read_spec(text: str) -> Spec:
    """Read one name.

    Raises:
        ConfigError: It is none; the message lists what there is.
    """
    match = _NAME.fullmatch(text)
    strategy = next((each for each in MEASURABLE if match and each == match["strategy"]), None)
    stop = next((each for each in STOP_KINDS if match and each == (match["stop"] or "none")), None)
    how = next((each for each in AGGREGATES if match and each == (match["how"] or _RULE.aggregate)), None)
    if match is None or strategy is None or stop is None or how is None:
        raise ConfigError(
            f"{text!r} is no search: write STRATEGY-N, STRATEGY-N+STOP or STRATEGY-N/AGGREGATE, with one of "
            f"{', '.join(MEASURABLE)}; {', '.join(STOP_KINDS)}; {', '.join(AGGREGATES)}"
        )
    n = int(match["n"] or 1)
    if (strategy == "single") != (match["n"] is None) or n > MAX_N:
        raise ConfigError(
            f"{text!r}: every search but `single` has a width from 1 to {MAX_N}, as in majority-16"
        )
    if stop != "none" and strategy not in METHODS:
        raise ConfigError(f"{text!r}: only a vote stops early, and {strategy} is a tree")
    return Spec(strategy=strategy, n=n, stop=stop, aggregate=how)


def read_specs(text: str) -> tuple[Spec, ...]:
    """Read names between commas, each once.

    Raises:
        ConfigError: As :func:`read_spec`.
    """
    return tuple(dict.fromkeys(read_spec(name.strip()) for name in text.split(",")))
