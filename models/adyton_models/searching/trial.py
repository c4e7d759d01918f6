# SPDX-License-Identifier: Apache-2.0
"""Several searches on the same problems, measured in memory: those of one pool together, trees as they are served."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from adyton_models.searching.measuring import Asked, Chooser, Run, price, run_of
from adyton_models.searching.pools import Pool, Reader
from adyton_models.searching.searcher import Searcher, side_by_side
from adyton_models.searching.specs import Spec
from adyton_protocol.errors import ContextOverflow
from adyton_protocol.selection.aggregate import aggregate
from adyton_protocol.selection.candidate import SelectionRule

AT_A_TIME: Final = 4


class Trial:
    """Searches on problems, with one scorer or none.

    Attributes:
        runs: So far.
        pairs: Of the scorer: for every problem with right and wrong answers, how many pairs of one of each it puts in
            the right order (ties count half), and how many there are.
    """

    def __init__(self, searcher: Searcher, specs: Sequence[Spec], seeds: Sequence[int]) -> None:
        """Take what to run.

        Args:
            searcher: The models; the first scorer counts.
            specs: Searches.
            seeds: With each of which every problem is searched.
        """
        self._searcher = searcher
        self._specs = specs
        self._seeds = seeds
        self.scorer = next(iter(searcher.scorers), None)
        self.runs: list[Run] = []
        self.pairs: list[tuple[float, int]] = []

    @property
    def answer_auc(self) -> float | None:
        """Chance that a right answer to a problem has a higher score than a wrong one; None if nobody knows."""
        total = sum(n for _, n in self.pairs)
        return sum(ordered for ordered, _ in self.pairs) / total if total else None

    def run(self, asked: Sequence[Asked], report: Callable[[float], None] = lambda _: None) -> None:
        """Search all problems.

        Args:
            asked: They.
            report: Is told what share is done.
        """
        done = 0

        async def search(each: Asked) -> None:
            nonlocal done
            try:
                await self._choose(each)
                await self._search(each)
            except ContextOverflow:
                # A problem that does not fit is not solved, and costs nothing.
                self.runs += [
                    _unsolved(each, seed, spec, self._judge(spec))
                    for spec in self._specs
                    for seed in self._seeds
                ]
            done += 1
            report(done / len(asked))

        asyncio.run(side_by_side(asked, search, at_a_time=AT_A_TIME))

    async def _choose(self, each: Asked) -> None:
        """What is chosen from pools."""
        specs = [spec for spec in self._specs if spec.pooled]
        if not specs:
            return
        searcher, text = self._searcher, each.question.text
        depth = max(spec.n for spec in specs)
        pools = searcher.sample(text, number=each.number, seeds=self._seeds, n=depth)
        readers: dict[str, Reader] = {}
        prices: dict[str, float] = {}
        if self.scorer is not None and any(spec.scored for spec in specs):
            texts = dict.fromkeys(candidate.text for pool in pools for candidate in pool.candidates)
            readers[self.scorer] = await searcher.score(text, texts, self.scorer)
            prices[self.scorer] = price(searcher.scorers[self.scorer].model.n_params)
            self.pairs.append(_pairs(each, readers[self.scorer]))
        for sampled in pools:
            pool = Pool(
                question_id=each.id,
                seed=sampled.seed,
                prompt_tokens=sampled.prompt_tokens,
                candidates=sampled.candidates,
                readers=readers,
            )
            chooser = Chooser(each, pool, prices, price(searcher.model.n_params))
            self.runs += [chooser.run(spec, self._judge(spec)) for spec in specs]

    async def _search(self, each: Asked) -> None:
        """What is run as it is served."""
        for spec in self._specs:
            if not spec.pooled:
                for seed in self._seeds:
                    finding = await self._searcher.search(
                        spec.plan, each.question.text, number=each.number, seed=seed, scorer=self.scorer
                    )
                    self.runs.append(run_of(each, seed, spec, self._judge(spec), finding))

    def _judge(self, spec: Spec) -> str:
        """Of `auto`, the scorer that it may use."""
        return self.scorer or "" if spec.scored or spec.strategy == "auto" else ""


def _pairs(each: Asked, reader: Reader) -> tuple[float, int]:
    how = SelectionRule(method="majority").aggregate
    right: list[float] = []
    wrong: list[float] = []
    for text, scored in reader.texts.items():
        if scored.scores:
            (right if each.is_right(text) else wrong).append(aggregate(scored.scores, how))
    difference = np.subtract.outer(np.array(right), np.array(wrong))
    return float((difference > 0).sum() + (difference == 0).sum() / 2), int(difference.size)


def _unsolved(each: Asked, seed: int, spec: Spec, scorer: str) -> Run:
    return Run(
        question_id=each.id,
        seed=seed,
        spec=str(spec),
        scorer=scorer,
        right=False,
        policy_tokens=0,
        prompt_tokens=0,
        scorer_tokens=0,
        total_flops=0.0,
    )
