# SPDX-License-Identifier: Apache-2.0
"""What a caller asked a search to do: complete, typed and within the operator's bounds."""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from adyton_protocol.selection.bounds import STOP_KINDS, Budget, StopKind, StopRule
from adyton_protocol.selection.candidate import SelectionRule

__all__ = [
    "EXPERIMENTAL",
    "NEEDS_SCORER",
    "STOP_KINDS",
    "STRATEGIES",
    "Budget",
    "Plan",
    "StopKind",
    "StopRule",
    "Strategy",
]

Strategy = Literal[
    "single",
    "majority",
    "weighted",
    "best-of-n",
    "bom",
    "rpc",
    "pairwise",
    "rebase",
    "beam",
    "dvts",
    "mcts",
    "refine",
    "auto",
]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)

EXPERIMENTAL: Final[frozenset[Strategy]] = frozenset({"mcts"})
NEEDS_SCORER: Final[frozenset[Strategy]] = frozenset(
    {"weighted", "best-of-n", "bom", "pairwise", "rebase", "beam", "dvts", "mcts", "refine"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A search, as it was asked for.

    Attributes:
        strategy: Its name.
        n: Candidates, or width of a tree.
        rule: How the answer is chosen in the end.
        budget: What it may spend.
        stop: When a vote ends early.
        branching: Children of a node, for ``beam`` and ``dvts``.
        balance: Temperature of REBASE's softmax over scores (Wu et al.: 0.2).
        in_flight: Most lines that are extended at a time.
        pad_to_budget: Spend the whole budget whatever happens, so that effort tells nothing of the question.
        experimental: Whoever asks knows that the strategy is one for comparison only.
    """

    strategy: Strategy
    n: int
    rule: SelectionRule
    budget: Budget = field(default_factory=Budget)
    stop: StopRule = field(default_factory=StopRule)
    branching: int = 4
    balance: float = 0.2
    in_flight: int = 64
    pad_to_budget: bool = False
    experimental: bool = False
