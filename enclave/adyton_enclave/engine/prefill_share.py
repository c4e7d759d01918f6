# SPDX-License-Identifier: Apache-2.0
"""How many prompt tokens may ride along in a step that decodes: so many that running streams hardly notice.

A long prompt computed in one go would stop every running stream for seconds; computed in crumbs it would take for
ever. What a token of each kind costs depends on model, machine and load, so it is measured, step by step, and the
share is chosen so that a mixed step takes at most :data:`SLOWDOWN` times as long as one that only decodes. Logits
do not depend on where a prompt is cut, in the default profile bit for bit, so the cuts are free to move.
"""

from typing import Final

SLOWDOWN: Final = 4.0
"""A running stream's gap between tokens grows by at most this factor while others' prompts are computed. Prefill
then has three quarters of the machine."""
MIN_TOKENS: Final = 16
"""Fewer at once waste the machine: weights are read again for each step."""
FIRST_TOKENS: Final = 64
"""Used until both costs were seen."""

_SMOOTHING: Final = 0.2


class PrefillShare:
    """Measures steps and answers for the next one. Owned by the loop thread."""

    def __init__(self, most_tokens: int, *, fixed: bool = False) -> None:
        """Never allow more than ``most_tokens``, and always so many when the operator fixed the number."""
        self._most = most_tokens
        self._fixed = fixed
        self._decode_s: dict[int, float] = {}
        self._token_s: float | None = None

    def observe(self, n_decoding: int, n_prefill: int, elapsed_s: float) -> None:
        """Learn from a step.

        Args:
            n_decoding: Sequences that got one token.
            n_prefill: Prompt tokens beside them.
            elapsed_s: Time of the computation. Comes from a clock that the host may control, which then decides
                who waits for whom, as it can anyway.
        """
        if not n_prefill:
            self._decode_s[n_decoding] = _smooth(self._decode_s.get(n_decoding), elapsed_s)
        elif n_prefill >= MIN_TOKENS:
            own_s = elapsed_s - (self._expected_s(n_decoding) or 0.0)
            self._token_s = _smooth(self._token_s, max(own_s, 0.0) / n_prefill)

    def tokens(self, n_decoding: int) -> int:
        """Most prompt tokens for a step in which ``n_decoding`` sequences, at least one, get a token."""
        if self._fixed:
            return self._most
        decode_s = self._expected_s(n_decoding)
        if decode_s is None or self._token_s is None:
            return min(FIRST_TOKENS, self._most)
        affordable = (SLOWDOWN - 1) * decode_s / max(self._token_s, 1e-9)
        return min(max(int(affordable), MIN_TOKENS), self._most)

    def _expected_s(self, n_decoding: int) -> float | None:
        """Time of a step that decodes so many and does nothing else, from the most similar one seen."""
        if not n_decoding or not self._decode_s:
            return None
        if n_decoding in self._decode_s:
            return self._decode_s[n_decoding]
        return self._decode_s[min(self._decode_s, key=lambda seen: abs(seen - n_decoding))]


def _smooth(before: float | None, now: float) -> float:
    return now if before is None else before + _SMOOTHING * (now - before)
