# SPDX-License-Identifier: Apache-2.0
"""Generation of word problems: reproducible, solvable, in disjoint splits."""

import re
import subprocess
import sys
from itertools import combinations
from random import Random  # noqa: TID251 - reproducible data, no secret

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_models.tasks import Problem, Split, generate, read_problem
from adyton_models.tasks.graph import MAX_STEPS, MAX_VALUE, Operation
from adyton_models.tasks.render import draw
from adyton_models.tasks.splits import belongs, templates_of
from adyton_models.tasks.templates import FRAMES, STYLES, TEMPLATE_COUNT, template

VARIANTS = ({}, {"distractors": 2}, {"shuffle": True}, {"distractors": 1, "shuffle": True})


def test_the_same_arguments_give_the_same_problems() -> None:
    """A seed names a set of problems for ever; another seed names another set."""
    first, again = list(generate("test", 3, 40)), list(generate("test", 3, 40))
    assert first == again
    assert [p.text for p in first] != [p.text for p in generate("test", 4, 40)]


def test_problems_do_not_depend_on_the_interpreter_s_hash_seed() -> None:
    """Another process, with another string hash seed, draws the same problem."""
    code = "from adyton_models.tasks import generate; print(next(generate('test', 1, 1)).text)"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_step_counts_are_uniform() -> None:
    """Each asked-for step count is as frequent as the others, and is the number of derived quantities."""
    counts = [0] * 6
    for problem in generate("test", 1, 80, (2, 3, 4, 5)):
        counts[problem.steps] += 1
        derived = [node for node in problem.nodes if node.operation is not Operation.BASE]
        assert len(derived) == problem.steps
    assert counts == [0, 0, 20, 20, 20, 20]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("split", list(Split))
def test_the_text_alone_has_the_answer(split: Split, variant: dict[str, int]) -> None:
    """Reading the words back and solving them gives the answer the graph has."""
    for problem in generate(split, 5, 60, (1, 2, 3, 4, 5, 6), **variant):
        facts = read_problem(problem.text)
        assert facts.values[facts.asked] == problem.answer
        assert all(0 <= value <= MAX_VALUE for value in facts.values.values())


def test_every_fact_of_a_plain_problem_is_needed() -> None:
    """Without distractors the answer depends on every fact, so nothing can be skipped."""
    for problem in generate("train", 2, 200, (1, 2, 3, 4, 5, 6)):
        needed, waiting = set(), [len(problem.nodes) - 1]
        while waiting:
            index = waiting.pop()
            needed.add(index)
            waiting += problem.nodes[index].references
        assert needed == set(range(len(problem.nodes)))


def test_splits_share_no_template_and_no_graph() -> None:
    """No problem of one set has the wording of another set's; from three steps on, nor the structure."""
    drawn = {split: list(generate(split, 1, 1500, tuple(range(1, 11)), distractors=1)) for split in Split}
    for one, other in combinations(Split, 2):
        assert not {p.template for p in drawn[one]} & {p.template for p in drawn[other]}
        graphs = [{p.graph for p in drawn[split] if p.steps >= 3} for split in (one, other)]
        assert not graphs[0] & graphs[1]


def test_every_template_belongs_to_one_split() -> None:
    """The sets of templates are disjoint, and together they are all templates."""
    assert sorted(number for split in Split for number in templates_of(split)) == list(range(TEMPLATE_COUNT))


@given(st.sampled_from(Split), st.integers(0, 10_000), st.integers(1, MAX_STEPS), st.booleans())
def test_generated_problems_are_of_the_split_asked_for(
    split: Split, seed: int, steps: int, shuffle: bool
) -> None:
    """Whatever is drawn, its template and graph are those of the set it is drawn for, and of no other."""
    problem = draw(Random(seed), split, steps, shuffle=shuffle)
    assert problem.split is split
    assert belongs(split, problem.template, problem.graph, steps)
    assert not any(
        belongs(other, problem.template, problem.graph, steps) for other in Split if other is not split
    )


def test_a_solution_follows_the_order_of_the_text() -> None:
    """Each line is the first needed fact of the text, not yet used, whose references are known by then."""
    for problem in generate("train", 4, 200, tuple(range(1, 11)), distractors=1, shuffle=True):
        facts = read_problem(problem.text)
        lines = [re.split("[ :]", line.strip())[0] for line in problem.solution.splitlines()[:-1]]
        known: list[str] = []
        for name in lines:
            ready = [each for each in facts.by_name if each in set(lines) - set(known)]
            assert name == next(each for each in ready if set(facts.by_name[each].references) <= set(known))
            known.append(name)


def test_templates_are_distinct_and_enough() -> None:
    """Every number is another pair of frame and style, and wordings differ between styles."""
    assert TEMPLATE_COUNT >= 200
    assert len({template(number) for number in range(TEMPLATE_COUNT)}) == TEMPLATE_COUNT
    for field in ("base", "more", "fewer", "times", "together", "difference", "question"):
        wordings = {getattr(style, field) for style in STYLES}
        assert len(wordings) >= 3
    assert len({frame.said for frame in FRAMES}) == len(FRAMES)


def test_numbers_of_steps_out_of_range_are_refused() -> None:
    """Nothing is generated for zero steps, nor beyond the largest graph."""
    for steps in (0, MAX_STEPS + 1):
        with pytest.raises(ValueError, match="steps must be"):
            next(generate("train", 1, 1, (steps,)))


def test_tasks_need_no_torch() -> None:
    """Whoever only checks answers does not need the training stack."""
    code = "import adyton_models.tasks, adyton_models.cli, sys; print('torch' in sys.modules or 'gguf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_names_in_a_problem_are_distinct() -> None:
    """One name stands for one quantity."""
    problem: Problem
    for problem in generate("train", 8, 100, (5, 6), distractors=2):
        assert len(set(problem.names)) == len(problem.names)
