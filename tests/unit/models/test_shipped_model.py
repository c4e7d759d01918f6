# SPDX-License-Identifier: Apache-2.0
"""The model that ships with the repository: the listed bytes, and it does what it is shipped for."""

import json
from pathlib import Path

import pytest

from adyton_models.catalog import default_catalog, read_catalog, sha256_of
from adyton_models.model_files import read_files
from adyton_models.problem_sets import read_problems
from adyton_models.tasks import Split, check_answer, check_steps
from adyton_models.tasks.splits import belongs

CATALOG = read_catalog(default_catalog())
SHIPPED = Path(default_catalog()).parent
HELDOUT = SHIPPED / "shipped" / "heldout.jsonl"


@pytest.mark.parametrize("entry", CATALOG.models, ids=lambda entry: entry.name)
def test_shipped_files_are_the_listed_ones(entry) -> None:
    """Each file has the digest of the catalog, so nobody can change a model without changing the list."""
    path = SHIPPED / entry.file
    assert sha256_of(path) == entry.sha256
    content = read_files(path).content
    assert (entry.content, entry.weights) == (content.digest, content.weights)
    assert path.stat().st_size < 16e6
    assert entry.license == "Apache-2.0"


def test_shipped_heldout_problems_are_held_out_and_solved() -> None:
    """The demonstration problems belong to the test split and their solutions are right in every line."""
    lines = [json.loads(line) for line in HELDOUT.read_text().splitlines()]
    assert len(lines) >= 200
    for line in lines:
        assert belongs(Split.TEST, line["template"], line["graph"], line["steps"])
        assert check_answer(line["problem"], line["solution"])
        assert {step.verdict for step in check_steps(line["problem"], line["solution"])} == {"correct"}


@pytest.mark.slow
def test_the_shipped_model_solves_most_held_out_problems() -> None:
    """At its default sampling, far more held-out problems come out right than luck could explain."""
    pytest.importorskip("llama_cpp")
    from adyton_models.evaluation import Conditions, evaluate  # noqa: PLC0415 - loads llama.cpp
    from adyton_models.serving import ServedModel  # noqa: PLC0415 - loads llama.cpp

    entry = CATALOG.entry(None)
    questions = read_problems(HELDOUT)[:100]
    with ServedModel(SHIPPED / entry.file, n_ctx=entry.n_ctx) as model:
        measured = evaluate(model, questions, Conditions(sampling=entry.sampling))
    assert measured.overall.mean >= 0.4
