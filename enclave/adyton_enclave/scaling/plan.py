# SPDX-License-Identifier: Apache-2.0
"""What a caller asked a search to do: complete, typed and within the operator's bounds."""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from adyton_protocol.selection.candidate import SelectionRule

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

StopKind = Literal["none", "esc", "beta"]
STOP_KINDS: Final[tuple[StopKind, ...]] = get_args(StopKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most that a search may spend; None is no bound of its own.

    Attributes:
        policy_tokens: Tokens that the generator may generate, all candidates together.
        total_flops: Of generator and scorer together, as :mod:`adyton_enclave.scaling.ledger` counts.
        time_s: Seconds from the beginning. The only bound by which an answer depends on timing.
    """

    policy_tokens: int | None = None
    total_flops: float | None = None
    time_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When a vote is decided before all candidates are there.

    Attributes:
        kind: ``none``: never. ``esc``: a window of candidates is unanimous (early-stopping self-consistency).
            ``beta``: the leader beats the runner-up with probability ``p`` (Beta posterior).
        p: Of ``beta``.
        window: Candidates that are sampled at a time.
    """

    kind: StopKind = "none"
    p: float = 0.95
    window: int = 5


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
