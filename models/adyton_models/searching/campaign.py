# SPDX-License-Identifier: Apache-2.0
"""A campaign of measurements on disk: pools that grow, scores of them, and searches that were run.

Everything is keyed by what decides it, so a campaign that is interrupted goes on where it was, and one that asks for
more (deeper pools, another scorer, more problems) only does what is missing.
"""

import asyncio
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from adyton_enclave.scoring.adapter import Adapter
from adyton_models.catalog import Sampling
from adyton_models.searching.measuring import Asked, Run, run_of
from adyton_models.searching.pools import (
    Pool,
    merged,
    pool_record,
    read_pool_record,
    read_score_record,
    score_record,
)
from adyton_models.searching.searcher import ScorerChoice, Searcher, side_by_side
from adyton_models.searching.specs import Spec
from adyton_models.searching.store import Store
from adyton_protocol.digests import Digest
from adyton_protocol.selection.candidate import Candidate

Key = tuple[str, int]
SEARCHES_AT_A_TIME: Final = 2
"""Attention of every sequence passes over the cells of all others: twelve searches side by side take two and a half
times the CPU time of two."""
_DIGITS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What decides every record of a campaign.

    Attributes:
        generator: Content digest.
        sampling: How tokens are drawn.
        n_ctx: Most tokens of prompt and answer together.
        kv_type_k: Type of cached keys.
    """

    generator: str
    sampling: Sampling
    n_ctx: int
    kv_type_k: str

    @property
    def directory_name(self) -> str:
        """A short name that changes with any of it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


@dataclass(slots=True)
class Clock:
    """When to stop beginning anything new."""

    ends_s: float = float("inf")
    now: Callable[[], float] = time.monotonic

    @property
    def is_up(self) -> bool:
        """Whether the time is."""
        return self.now() >= self.ends_s


@dataclass(slots=True)
class Known:
    """Everything that a campaign has measured so far."""

    prompts: dict[Key, int] = field(default_factory=dict)
    candidates: dict[Key, tuple[Candidate, ...]] = field(default_factory=dict)
    scores: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[tuple[str, str, Key], Run] = field(default_factory=dict)

    def pool(self, key: Key, scorers: Iterable[str] = ()) -> Pool | None:
        """A pool with the views of these scorers, as far as all have seen it; None without any candidate."""
        question, seed = key
        candidates = self.candidates.get(key, ())
        readers = {}
        for scorer in scorers:
            records = self.scores.get((scorer, question))
            if not records:
                return None
            readers[scorer] = merged([read_score_record(record) for record in records])
            seen = readers[scorer].texts.keys()
            unseen = (at for at, candidate in enumerate(candidates) if candidate.text not in seen)
            candidates = candidates[: next(unseen, len(candidates))]
        if not candidates:
            return None
        return Pool(
            question_id=question,
            seed=seed,
            prompt_tokens=self.prompts[key],
            candidates=candidates,
            readers=readers,
        )


class Campaign:
    """Measurements in one directory, by one of several processes."""

    def __init__(self, directory: Path, setting: Setting, *, writer: str = "0") -> None:
        """Open or begin it.

        Args:
            directory: Of all campaigns.
            setting: Of this one.
            writer: Of this process; each process has a name of its own.
        """
        self.directory = directory / setting.directory_name
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "setting.json").write_text(json.dumps(asdict(setting), indent=1) + "\n")
        self._pools = Store(self.directory, "pools", writer=writer)
        self._scores = Store(self.directory, "scores", writer=writer)
        self._runs = Store(self.directory, "runs", writer=writer)

    def known(self) -> Known:
        """Read all that is there."""
        known = Known()
        for record in self._pools:
            key = record["q"], record["s"]
            candidates = read_pool_record(record)
            if len(candidates) > len(known.candidates.get(key, ())):
                known.candidates[key] = candidates
                known.prompts[key] = record["prompt"]
        for record in self._scores:
            known.scores[record["scorer"], record["q"]].append(record)
        for record in self._runs:
            run = Run(**record)
            known.runs[run.spec, run.scorer, (run.question_id, run.seed)] = run
        return known

    def grow_pools(
        self,
        searcher: Searcher,
        asked: Sequence[Asked],
        seeds: Sequence[int],
        depth: int,
        *,
        scorers: Sequence[str] = (),
        clock: Clock,
        report: Callable[[float], None] = lambda _: None,
    ) -> bool:
        """See that each problem has `depth` candidates of each seed, and that these scorers have seen them.

        Returns:
            Whether all is done; False where the time was up.
        """
        known = self.known()
        done = 0

        async def grow(each: Asked) -> None:
            nonlocal done
            if clock.is_up:
                return
            text = each.question.text
            pools = {seed: known.candidates.get((each.id, seed), ()) for seed in seeds}
            short = [seed for seed, candidates in pools.items() if len(candidates) < depth]
            for pool in searcher.sample(text, number=each.number, seeds=short, n=depth) if short else ():
                self._pools.add(pool_record(each.id, pool))
                pools[pool.seed] = pool.candidates
            texts = dict.fromkeys(candidate.text for pool in pools.values() for candidate in pool[:depth])
            for scorer in scorers:
                name = scorer_id(searcher, scorer)
                seen = {entry[0] for record in known.scores[name, each.id] for entry in record["texts"]}
                new = [text for text in texts if text not in seen]
                if new:
                    self._scores.add(score_record(each.id, name, await searcher.score(text, new, scorer)))
            done += 1
            report(done / len(asked))

        with self._pools, self._scores:
            asyncio.run(side_by_side(asked, grow, at_a_time=1))
        return done == len(asked)

    def run_searches(  # noqa: PLR0913 - what, of what, until when, and who watches
        self,
        searcher: Searcher,
        asked: Sequence[Asked],
        seeds: Sequence[int],
        specs: Sequence[Spec],
        *,
        scorer: str | None,
        clock: Clock,
        report: Callable[[float], None] = lambda _: None,
        alone: bool = False,
    ) -> bool:
        """See that each problem was searched by each of these, with each seed.

        Args:
            searcher: The models.
            asked: Problems.
            seeds: Of each.
            specs: Searches.
            scorer: Name of the one that they use.
            clock: Until when.
            report: Is told how much is done.
            alone: One search at a time, so that its time is its own; such runs are kept apart.

        Returns:
            Whether all is done.
        """
        known = self.known()
        name = "" if scorer is None else scorer_id(searcher, scorer)
        tag = f"{name} alone" if alone else name
        work = [(each, seed, spec) for each in asked for seed in seeds for spec in specs]
        done = 0

        async def search(item: tuple[Asked, int, Spec]) -> None:
            nonlocal done
            if clock.is_up:
                return
            each, seed, spec = item
            if (str(spec), tag, (each.id, seed)) not in known.runs:
                finding = await searcher.search(
                    spec.plan,
                    each.question.text,
                    number=each.number,
                    seed=seed,
                    scorer=scorer if spec.scored else None,
                )
                self._runs.add(run_of(each, seed, spec, tag, finding).as_json())
            done += 1
            report(done / len(work))

        with self._runs:
            asyncio.run(side_by_side(work, search, at_a_time=1 if alone else SEARCHES_AT_A_TIME))
        return done == len(work)


def scorer_id(searcher: Searcher, name: str) -> str:
    """What decides a scorer's scores, as a short name: its file and its adapter."""
    scorer = searcher.scorers[name]
    return scorer_digest(scorer.model.content, scorer.adapter)


def scorer_digest(content: str, adapter: Adapter) -> str:
    """The same from a file's content digest and its adapter; what searches were measured to bring decides no score."""
    judging = replace(adapter, scaling=(), digest=Digest(""))
    return hashlib.sha256(f"{content} {judging}".encode()).hexdigest()[:_DIGITS]


def share_of(items: Sequence[Asked], index: int, count: int) -> list[Asked]:
    """What process `index` of `count` does."""
    return list(items[index::count])


def scorer_names(choices: Sequence[ScorerChoice]) -> Mapping[str, str]:
    """Each scorer's :func:`scorer_digest` by its name, without loading it."""
    from adyton_models.model_files import pin_of  # noqa: PLC0415 - beside its only use
    from adyton_models.scoring import read_ingredients  # noqa: PLC0415 - as above

    return {
        choice.name: scorer_digest(
            pin_of(choice.path).content, read_ingredients(choice.adapter, choice.head).adapter
        )
        for choice in choices
    }
