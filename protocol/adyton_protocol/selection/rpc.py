# SPDX-License-Identifier: Apache-2.0
"""``rpc``: reasoning-pruning perplexity consistency (arXiv 2510.15444), a vote by probability that needs no scorer.

The generator's own probability of an answer's whole text takes the place of its vote. Whoever samples the same text
twice has learned nothing new, so each distinct text counts once; and improbable texts are left out first: those that
a mixture of two Weibull distributions puts into its lower component, and that are below the mean.

The probability is the paper's, the product over all tokens. The authors' code takes the *geometric mean* over tokens
instead, under which a text of twice the length with twice the surprise counts as much. Then a rare text weighs almost
what a probable one does, and the more are sampled, the more rare ones there are: accuracy falls as n grows. Here all
probabilities are divided by the greatest: the common factor changes no vote and the fit not at all, but nothing
underflows.

Fewer than eight votes carry no mixture of five parameters, and a fit may fail to settle: then nothing is pruned.
"""

import math
from typing import Final

from adyton_protocol.selection.arithmetic import exp
from adyton_protocol.selection.ballot import Ballot, Standing, by_weight
from adyton_protocol.selection.weibull import posterior_high

MIN_VOTES: Final = 8
"""Fewer are not pruned."""
_KEEP: Final = 0.5
"""Posterior of the upper component from which a text stays."""


def rank(ballot: Ballot) -> tuple[Standing, ...]:
    """The sum of the probabilities of each class's distinct texts, those that are pruned left out."""
    voters = sorted(index for members in ballot.classes for index in members)
    most = max(ballot.candidates[index].logprob for index in voters)
    relative = {index: ballot.candidates[index].logprob - most for index in voters}
    pruned = _pruned(voters, relative)
    standings: list[Standing] = []
    for members in ballot.classes:
        texts: dict[str, float] = {}
        for index in members:
            if index not in pruned:
                text = ballot.candidates[index].text
                texts[text] = max(texts.get(text, 0.0), exp(relative[index]))
        standings.append(
            Standing(
                members=members,
                weight=math.fsum(texts.values()),
                best=max(members, key=lambda index: relative[index]),
            )
        )
    return by_weight(standings)


def _pruned(voters: list[int], relative: dict[int, float]) -> frozenset[int]:
    """Candidates that do not count."""
    if len(voters) < MIN_VOTES:
        return frozenset()
    high = posterior_high([relative[index] for index in voters])
    if high is None:
        return frozenset()
    mean = math.fsum(exp(relative[index]) for index in voters) / len(voters)
    return frozenset(
        index
        for index, posterior in zip(voters, high, strict=True)
        if posterior < _KEEP and exp(relative[index]) < mean
    )
