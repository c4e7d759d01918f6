# SPDX-License-Identifier: Apache-2.0
"""What a search brought and cost on one problem: by choosing from a pool, or as it was run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Final

from adyton_enclave.scaling.ledger import Prices
from adyton_enclave.scaling.strategies import Finding
from adyton_models.answers import find_answer, same_answer
from adyton_models.problem_sets import Question
from adyton_models.searching.pools import Pool
from adyton_models.searching.specs import Spec
from adyton_protocol.selection.candidate import Candidate
from adyton_protocol.selection.choose import select
from adyton_protocol.selection.stopping import decided

FLOPS_PER_PARAMETER: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A problem to search an answer for.

    Attributes:
        id: Unique among all sets.
        number: Of it, which its draws depend on.
        question: The problem.
        any_number: Accept the last number of a text that declares no answer.
    """

    id: str
    number: int
    question: Question = field(repr=False)
    any_number: bool = False

    def is_right(self, text: str) -> bool:
        """Whether an answer declares the right result, by the yardstick of `adyton-models eval`."""
        found = find_answer(text, any_number=self.any_number)
        return found is not None and same_answer(self.question.answer, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One search for an answer to one problem.

    Attributes:
        question_id: Of the problem.
        seed: Decided every draw.
        spec: As written; see :mod:`~adyton_models.searching.specs`.
        scorer: Its name; empty without one.
        right: Whether the answer was.
        policy_tokens: Generated.
        prompt_tokens: Of the prompt, once.
        scorer_tokens: Read by the scorer.
        total_flops: Of both models.
        time_s: It took, where it was run alone; else 0.
    """

    question_id: str
    seed: int
    spec: str
    scorer: str
    right: bool
    policy_tokens: int
    prompt_tokens: int
    scorer_tokens: int
    total_flops: float
    time_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """All members."""
        return asdict(self)


class Chooser:
    """Chooses among the first candidates of a pool, as every search that samples whole answers would."""

    def __init__(self, asked: Asked, pool: Pool, prices: Mapping[str, float], generator_price: float) -> None:
        """Look at one pool.

        Args:
            asked: Its problem.
            pool: Its candidates.
            prices: FLOPs of a token that a scorer reads, by the scorer's name.
            generator_price: FLOPs of a token of the generator.
        """
        self._pool = pool
        self._prices = prices
        self._generator_price = generator_price
        self._asked = asked
        self.is_right = cache(asked.is_right)

    def run(self, spec: Spec, scorer: str = "") -> Run:
        """What a search would have brought, had it drawn these candidates.

        Raises:
            ValueError: The pool has fewer candidates than the search needs.
        """
        pool = self._pool
        reader = pool.readers[scorer] if spec.scored else None
        drawn = pool.candidates[: spec.n]
        if len(drawn) < spec.n:
            message = f"a pool of {len(drawn)} candidates cannot stand for a search of {spec.n}"
            raise ValueError(message)
        scored = drawn if reader is None else tuple(map(reader.candidate, drawn))
        candidates = _until_decided(scored, spec)
        policy = sum(candidate.n_tokens for candidate in candidates)
        read = 0 if reader is None else reader.tokens_of(candidates)
        return Run(
            question_id=pool.question_id,
            seed=pool.seed,
            spec=str(spec),
            scorer=scorer if spec.scored else "",
            right=self._chooses_right(candidates, spec),
            policy_tokens=policy,
            prompt_tokens=pool.prompt_tokens,
            scorer_tokens=read,
            total_flops=self._generator_price * (pool.prompt_tokens + policy)
            + (self._prices[scorer] * read if reader is not None else 0.0),
        )

    def _chooses_right(self, candidates: Sequence[Candidate], spec: Spec) -> bool:
        verdicts = {self.is_right(candidate.text) for candidate in candidates}
        if len(verdicts) == 1:
            # Whoever is chosen.
            return verdicts.pop()
        return self.is_right(candidates[select(candidates, spec.rule).winners[0]].text)


def _until_decided(candidates: Sequence[Candidate], spec: Spec) -> Sequence[Candidate]:
    """The candidates that are made when the vote is looked at after each window."""
    stop = spec.plan.stop
    if stop.kind == "none":
        return candidates
    for count in range(stop.window, len(candidates), stop.window):
        if decided(candidates[:count], spec.rule, stop):
            return candidates[:count]
    return candidates


def run_of(asked: Asked, seed: int, spec: Spec, scorer: str, finding: Finding) -> Run:
    """What a search brought that was run."""
    outcome, spent = finding.outcome, finding.spent
    return Run(
        question_id=asked.id,
        seed=seed,
        spec=str(spec),
        scorer=scorer,
        right=asked.is_right(outcome.candidates[outcome.selection.winners[0]].text),
        policy_tokens=spent.policy_tokens,
        prompt_tokens=spent.prompt_tokens,
        scorer_tokens=spent.scorer_tokens,
        total_flops=spent.total_flops,
        time_s=spent.time_s,
    )


def price(n_params: int) -> float:
    """FLOPs of a token, as the ledger of a search counts them."""
    return Prices(generator=FLOPS_PER_PARAMETER * n_params).generator
