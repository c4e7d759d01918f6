# SPDX-License-Identifier: Apache-2.0
"""Synthetic word problems with ground truth: generation, splits and the symbolic checker. Needs no torch.

>>> from adyton_models.tasks import check_answer, generate
>>> problem = next(generate("test", seed=1, n=1))
>>> check_answer(problem, problem.solution)
True
"""

from adyton_models.tasks.checker import (
    StepVerdict,
    Verdict,
    check_answer,
    check_steps,
    label_steps,
    parse_answer,
)
from adyton_models.tasks.facts import Fact, Facts, UnreadableProblemError
from adyton_models.tasks.handwritten import read_handwritten
from adyton_models.tasks.mix import MIX, OUT_OF_DISTRIBUTION, Bucket, generate_mix
from adyton_models.tasks.reader import read_problem
from adyton_models.tasks.render import Problem, generate
from adyton_models.tasks.splits import Split

__all__ = [
    "MIX",
    "OUT_OF_DISTRIBUTION",
    "Bucket",
    "Fact",
    "Facts",
    "Problem",
    "Split",
    "StepVerdict",
    "UnreadableProblemError",
    "Verdict",
    "check_answer",
    "check_steps",
    "generate",
    "generate_mix",
    "label_steps",
    "parse_answer",
    "read_handwritten",
    "read_problem",
]
