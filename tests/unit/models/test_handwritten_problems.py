# SPDX-License-Identifier: Apache-2.0
"""The problems written by hand: right, readable to the checker as facts, and of nobody's wording but their own."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_models.problem_sets import read_set
from adyton_models.sets import named_set, set_file
from adyton_models.tasks import (
    Problem,
    UnreadableProblemError,
    check_answer,
    label_steps,
    read_handwritten,
    read_problem,
)
from adyton_models.tasks.facts import apply
from adyton_models.tasks.handwritten import problem_from
from adyton_models.tasks.reader import matches_a_template
from adyton_models.tasks.templates import NAMES
from adyton_models.tokenizer import task_words

LINES = [json.loads(line) for line in set_file("handwritten").read_text(encoding="utf-8").splitlines()]
PROBLEMS = list(named_set("handwritten"))
each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: line["id"])


def test_there_are_enough_of_every_kind() -> None:
    """At least 60, of one to six operations, some with facts nobody needs and some with facts out of order."""
    assert len(PROBLEMS) >= 60
    assert {problem.steps for problem in PROBLEMS} == {1, 2, 3, 4, 5, 6}
    assert sum(any(node.distractor for node in problem.nodes) for problem in PROBLEMS) >= 15
    shuffled = [
        line
        for line in LINES
        if any(
            line["facts"].index(fact) < [each["name"] for each in line["facts"]].index(other)
            for fact in line["facts"]
            for other in fact["references"]
        )
    ]
    assert len(shuffled) >= 15


def test_no_two_are_alike() -> None:
    """Texts and numbers of the set are all distinct, and so are the names within a problem."""
    assert len({problem.text for problem in PROBLEMS}) == len(PROBLEMS)
    assert [line["id"] for line in LINES] == [f"h{at:03}" for at in range(1, len(LINES) + 1)]
    for problem in PROBLEMS:
        assert len(set(problem.names)) == len(problem.names)
        assert set(problem.names) <= set(NAMES)


@each_line
def test_the_working_written_down_gives_the_answer(line: dict[str, object]) -> None:
    """Each line of arithmetic is true and uses numbers of the text or earlier results; the last is the answer.

    The working was written apart from the facts, so a slip in either shows here.
    """
    numbers = [int(found) for found in re.findall(r"\d+", line["problem"])]
    results: list[int] = []
    for step in line["work"]:
        left, sign, right, result = re.fullmatch(r"(\d+) ([-+x/]) (\d+) = (\d+)", step).groups()
        operands = int(left), int(right)
        assert {"+": sum(operands), "-": operands[0] - operands[1], "x": operands[0] * operands[1]}.get(
            sign, operands[0] / operands[1]
        ) == int(result)
        assert operands[0] in [*numbers, *results]
        assert operands[1] in [*numbers, *results, 2]
        results.append(int(result))
    assert results[-1] == line["answer"]
    assert len(results) == line["steps"]


@each_line
def test_facts_working_and_solution_agree(line: dict[str, object]) -> None:
    """The facts give the same results as the working, and every given number stands in the text."""
    problem = problem_from(line)
    derived = [node.value for node in problem.nodes if not node.distractor and node.references]
    assert Counter(derived) == Counter(int(step.split(" = ")[1]) for step in line["work"])
    assert problem.answer == line["answer"]
    text = Counter(re.findall(r"\d+", problem.text))
    given_numbers = [fact["constant"] for fact in line["facts"] if fact["operation"] not in {"twice", "half"}]
    assert all(str(number) in text for number in given_numbers if number)
    assert all(fact["name"] in problem.text for fact in line["facts"])
    for fact in problem.facts().by_name.values():
        values = tuple(problem.facts().values[other] for other in fact.references)
        assert apply(fact.operation, values, fact.constant) >= 0
        assert fact.operation != "half" or values[0] % 2 == 0


def test_the_checker_labels_solutions_from_the_facts() -> None:
    """A right solution is right in each line, a wrong number spoils its line and all behind it."""
    for problem in PROBLEMS:
        for given_as in (problem, problem.facts()):
            labels = label_steps(given_as, problem.solution)
            assert labels == [True] * len(problem.solution.splitlines())
            assert check_answer(given_as, problem.solution)
            wrong = problem.solution.replace(str(problem.answer), str(problem.answer + 1))
            assert label_steps(given_as, wrong)[-1] is False
            assert not check_answer(given_as, wrong)


def test_no_sentence_is_of_a_template() -> None:
    """Not one fact or question is worded as the generator would, so the set tests other wordings only."""
    for problem in PROBLEMS:
        for sentence in re.findall(r"[^.?]+[.?]", problem.text):
            assert not matches_a_template(sentence.strip())
        with pytest.raises(UnreadableProblemError):
            read_problem(problem.text)


def test_buckets_say_whether_the_model_knows_the_words() -> None:
    """A problem of known words has no word that is not a token; the others have at least one."""
    known = set(task_words())
    for problem in PROBLEMS:
        words = re.findall(r"[^\W\d_]+", problem.text)
        kind = "known" if set(words) <= known else "other"
        assert problem.bucket == f"{kind} words {'1-2' if problem.steps <= 2 else '3-6'}"


@given(st.sampled_from(LINES), st.sampled_from(["answer", "steps", "solution", "asked", "facts", "work"]))
def test_a_slip_in_the_file_is_an_error_and_no_label(line: dict[str, object], member: str) -> None:
    """A line whose members contradict each other, or are missing, is refused."""
    spoiled = {
        "answer": line["answer"] + 1,
        "steps": line["steps"] + 1,
        "solution": line["solution"].replace(" = ", " == ", 1),
        "asked": "Ghost",
        "facts": [fact for fact in line["facts"] if fact["name"] != line["asked"]],
    }
    with pytest.raises(UnreadableProblemError):
        problem_from({key: value for key, value in line.items() if key != member})
    if member in spoiled:
        with pytest.raises(UnreadableProblemError):
            problem_from(line | {member: spoiled[member]})


def test_an_evaluation_knows_what_they_say() -> None:
    """The set as `eval` takes it has the facts, so the first wrong step of an answer is named."""
    questions = read_set("handwritten")
    assert [question.text for question in questions] == [problem.text for problem in PROBLEMS]
    assert [question.problem for question in questions] == PROBLEMS
    assert [question.answer for question in questions] == [str(problem.answer) for problem in PROBLEMS]


@given(st.text(max_size=200))
def test_any_file_is_problems_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever stands in a file, reading it gives problems or the one error."""
    path = Path(tmp_path_factory.mktemp("hand")) / "set.jsonl"
    path.write_text(text, encoding="utf-8")
    try:
        found = read_handwritten(path)
    except UnreadableProblemError:
        return
    assert all(isinstance(problem, Problem) for problem in found)
