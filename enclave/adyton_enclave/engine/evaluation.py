# SPDX-License-Identifier: Apache-2.0
"""What a model thinks of given tokens: the question and the answer, plain frozen values.

Positions count a sequence's tokens from 0. The logits *at* a position are those after its token: they say what
the model expects next. A scorer whose verdict stands for a tag token is asked at the tag; one whose verdict is
the next token is asked at the last token before it.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine.request import Priority
from adyton_protocol.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to read from the logits.

    Attributes:
        positions: Where; distinct, at least one, ascending. Negative ones count from the end.
        label_ids: Tokens whose raw logits to report at every position.
        n_top: How many of the highest logits to report at every position.
        hidden: Report the hidden state at every position, for a model that was loaded with ``hidden_states``.
    """

    positions: tuple[int, ...]
    label_ids: tuple[int, ...] = ()
    n_top: int = 0
    hidden: bool = False

    def __post_init__(self) -> None:
        """Check what needs no sequence."""
        if not self.positions:
            raise InvalidRequest("an evaluation needs a position")
        if self.n_top < 0:
            raise InvalidRequest("the number of top logits must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """Tokens to evaluate once, without keeping anything of them.

    Attributes:
        model: Name of a loaded model.
        token_ids: The whole sequence, at least one token.
        question: What to report.
        tenant: Who shares a place in the queue.
        timeout_s: Seconds after which the work is dropped; None is never.
        priority: As in ``GenerationRequest``.
        cache_namespace: As in ``GenerationRequest``.
    """

    model: str
    token_ids: tuple[int, ...] = field(repr=False)
    question: Question
    tenant: str = ""
    timeout_s: float | None = None
    priority: Priority = "normal"
    cache_namespace: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """Logits that were asked for. Row ``i`` of every array belongs to ``positions[i]``.

    Attributes:
        positions: Counted from 0, ascending.
        label_logits: Raw logits of the labels, float32, shape ``(n_positions, n_labels)``.
        next_logits: Raw logit of the token that follows in the sequence, float32, shape ``(n_positions,)``;
            NaN at its end.
        logsumexp: Of all raw logits, float64, shape ``(n_positions,)``: a logit less this is a log-probability.
        top_ids: Tokens with the highest logits, best first, ties by id, int64, shape ``(n_positions, n_top)``.
        top_logits: Their raw logits, float32, same shape.
        hidden: What the last norm gives, which the output matrix turns into logits, float32, shape
            ``(n_positions, width)``; of width 0 unless it was asked for.
    """

    positions: tuple[int, ...]
    label_logits: npt.NDArray[np.float32] = field(repr=False)
    next_logits: npt.NDArray[np.float32] = field(repr=False)
    logsumexp: npt.NDArray[np.float64] = field(repr=False)
    top_ids: npt.NDArray[np.int64] = field(repr=False)
    top_logits: npt.NDArray[np.float32] = field(repr=False)
    hidden: npt.NDArray[np.float32] = field(repr=False)

    @property
    def label_logprobs(self) -> npt.NDArray[np.float64]:
        """Log-probabilities of the labels among all tokens, shape ``(n_positions, n_labels)``."""
        return self.label_logits - self.logsumexp[:, None]

    @property
    def next_logprobs(self) -> npt.NDArray[np.float64]:
        """Log-probabilities of the tokens that follow, shape ``(n_positions,)``."""
        return self.next_logits - self.logsumexp
