# SPDX-License-Identifier: Apache-2.0
"""Sizes that say nothing of effort: how long an answer is made when its search was padded to its budget.

SECURITY: the length of a winner, the number of classes in a vote and the number of scored steps follow the question.
So an answer with ``pad_to_budget`` has a length that follows from what was asked alone: room for the longest winner,
the longest table, and for the transcript if that was asked for. What exceeds the room, which takes text of more than
so many bytes in every token, doubles it.
"""

from typing import Final

from adyton_enclave.api.search_order import SearchOrder
from adyton_protocol.padding import STEP_BYTES, bucket
from adyton_protocol.sse import MIN_COMMENT_BYTES, comment_of

HEAD_BYTES: Final = STEP_BYTES
"""Room for the head of a whole answer, in which its receipt stands."""
_TOKEN_BYTES: Final = 24
"""Room for the text of a token as JSON, with its part of the score of a step."""
_CANDIDATE_BYTES: Final = 1024
"""Room for a row of the vote table, and whatever stands around a candidate's text."""
_COMMENT_BYTES: Final = 1 << 16
_FRAME_BYTES: Final = 4096
"""Room for all else."""


def room_bytes(order: SearchOrder, *, max_tokens: int) -> int:
    """Bytes that the answer to a search is given, whatever it holds; a size of the channel's.

    Args:
        order: What was asked for.
        max_tokens: Longest candidate.
    """
    n, bound = order.plan.n, order.plan.budget.policy_tokens
    longest = max_tokens if bound is None else min(max_tokens, bound)
    texts = n if order.most is None else order.most
    if order.returns == "all":
        texts += n
    return bucket(HEAD_BYTES + _FRAME_BYTES + n * _CANDIDATE_BYTES + texts * longest * _TOKEN_BYTES)


def pad_document(body: bytes, room: int) -> bytes:
    """A JSON document with blanks behind it, so that it fills its room but for :data:`HEAD_BYTES`."""
    return body.ljust(_fitting(len(body) + HEAD_BYTES, room) - HEAD_BYTES)


def pad_events(events: bytes, room: int) -> bytes:
    """Whole event groups behind comments, so that they fill their room."""
    gap = _fitting(len(events) + MIN_COMMENT_BYTES, room) - len(events)
    # No reader has to hold more than it would for events.
    n_whole = (gap - MIN_COMMENT_BYTES) // _COMMENT_BYTES
    return comment_of(_COMMENT_BYTES) * n_whole + comment_of(gap - n_whole * _COMMENT_BYTES) + events


def _fitting(length: int, room: int) -> int:
    while room < length:
        room *= 2
    return room
