# SPDX-License-Identifier: Apache-2.0
"""REBASE on the models that ship, on problems that were held out."""

from pathlib import Path

import pytest
from engine_calls import until

from adyton_enclave.engine import (
    Engine,
    EngineConfig,
    GenerationRequest,
    ModelSpec,
    SamplingParams,
    sampling_key,
)
from adyton_enclave.scaling.plan import Plan
from adyton_enclave.scaling.strategies import run
from adyton_enclave.scoring import Scorer
from adyton_enclave.scoring.files import Ingredients
from adyton_models.catalog import Entry, default_catalog, read_catalog
from adyton_models.problem_sets import read_set
from adyton_models.scoring import read_ingredients
from adyton_models.serving import model_spec
from adyton_protocol.selection.candidate import SelectionRule

DIRECTORY = Path(default_catalog()).parent


def _ingredients(entry: Entry) -> Ingredients:
    return read_ingredients(DIRECTORY / entry.adapter, DIRECTORY / entry.head if entry.head else None)


def _spec(entry: Entry) -> ModelSpec:
    return model_spec(entry.name, DIRECTORY / entry.file, n_ctx=entry.n_ctx)


@pytest.mark.slow
async def test_rebase_8_answers_held_out_problems() -> None:
    """Of four problems that one sample in two gets right, at least three; each with a vote and a tree to show."""
    catalog = read_catalog(default_catalog())
    entry = catalog.entry(None)
    scorer_entry = catalog.entry(entry.scorer)
    config = EngineConfig(threads=1, n_ctx_total=8192, max_sequences=32, cache_cells=0)
    engine = Engine(config, [_spec(entry), _spec(scorer_entry)]).start()
    try:
        scorer = Scorer(engine, scorer_entry.name, _ingredients(scorer_entry))
        rule = SelectionRule(method="weighted", aggregate="last")
        plan = Plan(strategy="rebase", n=8, rule=rule)
        sampling = entry.sampling
        n_right = 0
        for seed, question in enumerate(read_set("heldout")[:4]):
            prompt = engine.models[entry.name].apply_chat_template(
                [{"role": "user", "content": question.text}]
            )
            request = GenerationRequest(
                model=entry.name,
                prompt_token_ids=tuple(prompt),
                max_tokens=sampling.max_tokens,
                key=sampling_key(seed),
                sampling=SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k,
                    min_p=sampling.min_p,
                ),
            )
            found = await run(plan, engine, scorer, request, question.text)
            outcome, spent = found.outcome, found.spent
            assert outcome.stop_reason == "complete"
            assert len(outcome.candidates) == 8
            assert (
                sum(len(vote.members) for vote in outcome.selection.votes) + len(outcome.selection.abstained)
                == 8
            )
            # Most lines begin alike, and the scorer reads what they have in common once.
            assert 0 < spent.scorer_tokens < spent.policy_tokens
            n_right += outcome.selection.votes[0].shown == question.answer
        assert n_right >= 3
        await until(lambda: not any(status.kv_cells_used for status in engine.status().values()))
    finally:
        engine.stop()
