# SPDX-License-Identifier: Apache-2.0
"""Judging answers step by step with a process reward model: adapters, heads, and scoring on the engine.

``Scorer`` is the way in. Nothing here says whether an answer is right: a score is a trained model's opinion.
"""

from adyton_enclave.scoring.adapter import Adapter, parse_adapter
from adyton_enclave.scoring.scorer import Scorer, ScoringBranch, ScoringTree
from adyton_enclave.scoring.terms import ScoringTerms

__all__ = [
    "Adapter",
    "Scorer",
    "ScoringBranch",
    "ScoringTerms",
    "ScoringTree",
    "parse_adapter",
]
