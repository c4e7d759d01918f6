# SPDX-License-Identifier: Apache-2.0
"""What ends a search: a budget that is spent, or a vote that is decided."""

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from adyton_protocol.errors import LocalProtocolError

StopKind = Literal["none", "esc", "beta", "dirichlet"]
STOP_KINDS: Final[tuple[StopKind, ...]] = get_args(StopKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most that a search may spend; None is no bound of its own.

    Attributes:
        policy_tokens: Tokens that the generator may generate, all candidates together.
        total_flops: Of generator and scorer together: two for each parameter and token.
        time_s: Seconds from the beginning. The only bound by which an answer depends on timing.

    Raises:
        LocalProtocolError: A bound is below 0, or no number.
    """

    policy_tokens: int | None = None
    total_flops: float | None = None
    time_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what nothing can be compared with."""
        bounds = (self.policy_tokens, self.total_flops, self.time_s)
        if not all(bound is None or 0 <= bound < math.inf for bound in bounds):
            raise LocalProtocolError("a budget is finite and not below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When a vote is decided before all candidates are there; see :mod:`adyton_protocol.selection.stopping`.

    Attributes:
        kind: ``none``: never. ``esc``: a window of candidates is unanimous (early-stopping self-consistency).
            ``beta``: the leader is ahead of the runner-up with probability ``p``. ``dirichlet``: it is ahead of all
            others, and of an answer that nobody gave yet.
        p: Of ``beta`` and ``dirichlet``.
        window: Candidates that are sampled at a time; the vote is looked at after each window.

    Raises:
        LocalProtocolError: An unknown kind, a probability that is not between 0 and 1, or an empty window. One
            candidate alone is always unanimous, so ``esc`` needs two.
    """

    kind: StopKind = "none"
    p: float = 0.95
    window: int = 5

    def __post_init__(self) -> None:
        """Refuse a rule that nobody can apply."""
        least = 2 if self.kind == "esc" else 1
        if self.kind not in STOP_KINDS or not 0.0 < self.p < 1.0 or self.window < least:
            raise LocalProtocolError("a stopping rule has a kind, a probability and a window")
