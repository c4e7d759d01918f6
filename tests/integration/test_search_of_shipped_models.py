# SPDX-License-Identifier: Apache-2.0
"""Searches with the models that are shipped, on held-out problems: the way from question to chosen answer is whole."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from adyton_enclave.engine import (
    Engine,
    EngineConfig,
    GenerationRequest,
    ModelSpec,
    SamplingParams,
    sampling_key,
)
from adyton_enclave.scaling.plan import Plan, Strategy
from adyton_enclave.scaling.strategies import Finding, run
from adyton_enclave.scoring import Scorer
from adyton_enclave.scoring.files import ScorerFiles
from adyton_models.catalog import default_catalog, read_catalog
from adyton_models.model_files import pin_of
from adyton_protocol.answers import AnswerRule, read_answer
from adyton_protocol.digests import sha256_hex
from adyton_protocol.selection.candidate import SelectionRule

N_PROBLEMS = 4
N = 8


@pytest.fixture(scope="module")
def shipped() -> Iterator[tuple[Engine, Scorer]]:
    """The default generator and its scorer in one engine."""
    directory = default_catalog().parent
    catalog = read_catalog(default_catalog())
    generator = catalog.entry(None)
    judge = catalog.entry(generator.scorer)
    assert judge.adapter is not None
    adapter = directory / judge.adapter
    files = ScorerFiles(
        adapter=adapter, adapter_digest=sha256_hex(adapter.read_bytes()), head=None, head_digest=None
    )
    paths = [directory / entry.file for entry in (generator, judge)]
    sampling = SamplingParams(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
    specs = [
        ModelSpec(name="generator", path=str(paths[0]), pin=pin_of(paths[0]), n_ctx=1024, sampling=sampling),
        ModelSpec(
            name="scorer",
            path=str(paths[1]),
            pin=pin_of(paths[1]),
            n_ctx=1024,
            generates=False,
            scorer=files.parts,
        ),
    ]
    engine = Engine(EngineConfig(threads=1, n_ctx_total=4096, max_sequences=16), specs).start()
    yield engine, Scorer(engine, "scorer", files.read())
    engine.stop()


def _problems() -> list[dict[str, str]]:
    path: Path = default_catalog().parent / "shipped" / "heldout.jsonl"
    with path.open() as lines:
        return [json.loads(line) for line in itertools.islice(lines, N_PROBLEMS)]


async def _search(shipped: tuple[Engine, Scorer], strategy: Strategy, seed: int, problem: str) -> Finding:
    engine, scorer = shipped
    model = engine.models["generator"]
    request = GenerationRequest(
        model="generator",
        prompt_token_ids=tuple(model.apply_chat_template([{"role": "user", "content": problem}])),
        max_tokens=400,
        key=sampling_key(seed),
        sampling=model.defaults,
    )
    plan = Plan(strategy=strategy, n=N, rule=SelectionRule(method="weighted"))
    return await run(plan, engine, scorer, request, problem)


def _key(text: str) -> str | None:
    answer = read_answer(text, AnswerRule())
    return None if answer is None else answer.key


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["weighted", "rebase"])
async def test_a_scored_search_beats_its_own_candidates(
    strategy: Strategy, shipped: tuple[Engine, Scorer]
) -> None:
    """The answer that is chosen is right more often than an answer at random; right steps have greater scores."""
    hits: list[bool] = []
    right: list[float] = []
    wrong: list[float] = []
    for seed, problem in enumerate(_problems()):
        outcome = (await _search(shipped, strategy, seed, problem["problem"])).outcome
        expected = _key(problem["solution"])
        assert expected is not None
        hits.append(_key(outcome.candidates[outcome.selection.winners[0]].text) == expected)
        for candidate in outcome.candidates:
            assert candidate.complete
            (right if _key(candidate.text) == expected else wrong).append(math.prod(candidate.scores))
    assert fmean(hits) >= len(right) / (len(right) + len(wrong))
    # REBASE may have given up whatever was wrong.
    assert not wrong or fmean(right) > fmean(wrong)
