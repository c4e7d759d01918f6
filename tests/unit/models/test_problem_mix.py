# SPDX-License-Identifier: Apache-2.0
"""The mix, its buckets and the set out of distribution: shares that hold, problems that are what they are called."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_models.catalog import default_catalog, read_catalog
from adyton_models.cli import main
from adyton_models.sets import named_set
from adyton_models.tasks import (
    MIX,
    OUT_OF_DISTRIBUTION,
    Bucket,
    Split,
    check_answer,
    generate_mix,
    label_steps,
    read_problem,
)
from adyton_models.tasks.graph import LARGER_NUMBERS, TRAINED_NUMBERS, Operation
from adyton_models.tasks.mix import bucket_problems
from adyton_models.tasks.splits import belongs
from adyton_models.tokenizer import END, Tokenizer

BUCKETS = (*MIX, *OUT_OF_DISTRIBUTION)
each_bucket = pytest.mark.parametrize("bucket", BUCKETS, ids=lambda bucket: bucket.name)


@each_bucket
@pytest.mark.parametrize("split", list(Split))
def test_problems_of_a_bucket_are_what_it_says(bucket: Bucket, split: Split) -> None:
    """Operations, unneeded facts, order and size of numbers are the bucket's, and the split is the one asked for."""
    orders = set()
    for problem in islice(bucket_problems(bucket, split, 5), 40):
        facts = read_problem(problem.text)
        needed = [node for node in problem.nodes if not node.distractor]
        assert sum(node.operation is not Operation.BASE for node in needed) == problem.steps
        assert problem.steps in bucket.steps
        assert len(problem.nodes) - len(needed) in bucket.distractors
        assert all(0 <= value <= bucket.numbers.largest for value in facts.values.values())
        assert problem.bucket == bucket.name
        assert problem.template is not None
        assert problem.split is split
        assert belongs(split, problem.template, problem.graph, problem.steps)
        said = list(facts.by_name)
        orders.add(
            all(
                said.index(other) < said.index(name)
                for name in said
                for other in facts.by_name[name].references
            )
        )
    assert (False in orders) if bucket.shuffle else orders == {True}


@given(st.sampled_from(BUCKETS), st.sampled_from(Split), st.integers(0, 10**6))
def test_every_problem_of_every_bucket_reads_back_and_its_solution_is_right(
    bucket: Bucket, split: Split, seed: int
) -> None:
    """The words alone lead to the answer, and each line of the solution is correct."""
    problem = next(bucket_problems(bucket, split, seed))
    facts = read_problem(problem.text)
    assert facts == problem.facts()
    assert facts.values[facts.asked] == problem.answer
    assert set(label_steps(problem.text, problem.solution)) == {True}
    assert check_answer(problem.text, problem.solution)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 60))
def test_any_number_of_problems_has_the_shares_of_the_mix(shares: list[int], n: int) -> None:
    """However many are drawn, no bucket is off its share by two problems or more."""
    buckets = [Bucket(name=f"b{at}", share=share, steps=(1,)) for at, share in enumerate(shares)]
    counts = Counter(problem.bucket for problem in generate_mix(Split.TEST, 1, n, buckets))
    for bucket in buckets:
        assert abs(counts[bucket.name] - n * bucket.share / sum(shares)) < 2


def test_more_problems_begin_with_the_same_ones() -> None:
    """A larger set contains the smaller one, and a bucket's problems do not depend on the rest of the mix."""
    many = list(generate_mix(Split.TEST, 3, 120))
    assert many[:50] == list(generate_mix(Split.TEST, 3, 50))
    assert many != list(generate_mix(Split.TEST, 4, 120))
    alone = [problem for problem in many if problem.bucket == MIX[1].name]
    assert alone == list(islice(bucket_problems(MIX[1], Split.TEST, 3), len(alone)))


def test_shares_are_percent_and_names_are_distinct() -> None:
    """The mix reads as a table of percentages."""
    assert sum(bucket.share for bucket in MIX) == 100
    assert len({bucket.name for bucket in BUCKETS}) == len(BUCKETS)


def test_what_is_out_of_distribution_is_in_no_training_row() -> None:
    """Each such bucket goes beyond training in operations, in unneeded facts, or in the numbers given."""
    pytest.importorskip("torch")
    from adyton_models.training.data import STAGES  # noqa: PLC0415 - loads torch

    trained = max(max(weights) for _, weights in STAGES)
    assert max(max(bucket.steps) for bucket in MIX) <= trained
    assert max(max(bucket.distractors) for bucket in MIX) <= 2
    assert LARGER_NUMBERS.smallest > TRAINED_NUMBERS.given
    for bucket in OUT_OF_DISTRIBUTION:
        assert min(bucket.steps) > trained or min(bucket.distractors) > 2 or bucket.numbers is LARGER_NUMBERS


@each_bucket
def test_problem_and_solution_fit_what_the_shipped_model_serves(bucket: Bucket) -> None:
    """The longest solutions fit `max_tokens`, and with their problems the context."""
    entry = read_catalog(default_catalog()).entry(None)
    tokenizer = Tokenizer()
    for problem in islice(bucket_problems(bucket, Split.TEST, 7), 60):
        solution = len(tokenizer.encode(problem.solution)) + len([END])
        assert solution <= entry.sampling.max_tokens
        assert len(tokenizer.prompt(problem.text)) + entry.sampling.max_tokens <= entry.n_ctx


def test_the_page_about_the_task_lists_the_buckets_as_they_are() -> None:
    """Shares and numbers of operations in the tables of the page are those of the code."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "tasks.md").read_text()
    total = sum(bucket.share for bucket in OUT_OF_DISTRIBUTION)
    for bucket in BUCKETS:
        share = bucket.share if bucket in MIX else 100 * bucket.share // total
        operations = f"{bucket.steps[0]} to {bucket.steps[-1]}"
        assert f"| {bucket.name} | {share} % | {operations} |" in page


@pytest.mark.parametrize("name", ["heldout", "ood"])
def test_the_command_prints_a_set_as_it_ships(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What `problems --set` prints is the generated set, one object a line with its bucket."""
    assert main(["problems", "--set", name, "--jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    problems = list(named_set(name))
    assert [line["problem"] for line in lines] == [problem.text for problem in problems]
    assert [line["bucket"] for line in lines] == [problem.bucket for problem in problems]
    assert {line["split"] for line in lines} == {"test"}


def test_the_command_prints_the_mix(capsys: pytest.CaptureFixture[str]) -> None:
    """`problems --mix` draws from any split with any seed."""
    assert main(["problems", "--mix", "--split", "train", "--seed", "9", "--n", "30", "--jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["problem"] for line in lines] == [each.text for each in generate_mix(Split.TRAIN, 9, 30)]
    assert {line["split"] for line in lines} == {"train"}
