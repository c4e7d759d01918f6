# SPDX-License-Identifier: Apache-2.0
"""What a step computed at the positions where somebody wanted to know: rows of logits and of hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine.sampler import Logits


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """Rows of one step, or some of them.

    Attributes:
        logits: Shape ``(n, n_vocab)``.
        hidden: What the last norm gives, shape ``(n, width)``; of width 0 where the context keeps none.
    """

    logits: Logits = field(repr=False)
    hidden: npt.NDArray[np.float32] = field(repr=False)

    @classmethod
    def of(cls, logits: Logits) -> "Outputs":
        """Rows without hidden states."""
        return cls(logits, np.empty((len(logits), 0), np.float32))

    def rows(self, which: slice | Sequence[int]) -> "Outputs":
        """Some of the rows: a view for a slice, a copy for a list."""
        return Outputs(self.logits[which], self.hidden[which])
