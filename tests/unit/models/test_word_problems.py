# SPDX-License-Identifier: Apache-2.0
"""Generation of word problems: reproducible, solvable, in disjoint splits."""

import subprocess
import sys

import pytest

from adyton_models.tasks import Problem, Split, generate, read_problem
from adyton_models.tasks.graph import MAX_STEPS, MAX_VALUE, Operation
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


def test_splits_share_no_pair_of_template_and_graph() -> None:
    """No test or validation problem has both the wording and the structure of a training problem."""

    def pairs(split: Split) -> set[tuple[int, str]]:
        return {(p.template, p.graph) for p in generate(split, 1, 1500, (1, 2, 3, 4, 5))}

    train, validation, test = (pairs(split) for split in Split)
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_generated_problems_are_of_the_split_asked_for() -> None:
    """The split is a function of the problem, not of who asked."""
    for split in Split:
        assert {p.split for p in generate(split, 9, 50)} == {split}


def test_templates_are_distinct_and_enough() -> None:
    """Every number is another pair of frame and style, and wordings differ between styles."""
    assert TEMPLATE_COUNT >= 60
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
