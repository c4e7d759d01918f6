# SPDX-License-Identifier: Apache-2.0
"""`eval`: what is asked, how it is marked and counted, and that the same seed gives the same answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import make_tiny_gguf

from adyton_models.catalog import Sampling, default_catalog, read_catalog
from adyton_models.cli import main
from adyton_models.evaluation import Conditions, evaluate, mark, spread
from adyton_models.intervals import SampledScore, bootstrap, wilson
from adyton_models.problem_sets import Question, from_task
from adyton_models.serving import Completion, Sampled, ServedModel
from adyton_models.tasks import generate

QUESTIONS = tuple(Question(id=str(n), text=f"How much is {n} and {n}?", answer=str(2 * n)) for n in range(6))
SHORT = Sampling(temperature=1.0, max_tokens=12)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that ends its answers now and then."""
    return make_tiny_gguf(tmp_path_factory.mktemp("eval") / "tiny.gguf", ends=True).path


@pytest.fixture(scope="module")
def served(tiny: Path) -> Iterator[ServedModel]:
    """The model, four answers at a time."""
    with ServedModel(tiny, n_ctx=256, parallel=4) as model:
        yield model


def texts(model: ServedModel, questions: tuple[Question, ...], **conditions: object) -> list[list[str]]:
    """What the model answers."""
    measured = evaluate(model, questions, Conditions(**{"sampling": SHORT, **conditions}))  # type: ignore[arg-type]
    return [[each.text for each in marked.completions] for marked in measured.marks]


def test_a_seed_decides_every_answer_whatever_runs_beside(served: ServedModel, tiny: Path) -> None:
    """One after the other or four together: the same texts; another seed gives others; samples differ."""
    together = texts(served, QUESTIONS, samples=6)
    with ServedModel(tiny, n_ctx=256, parallel=1) as alone:
        assert alone.model.why_inexact is None
        assert texts(alone, QUESTIONS, samples=6) == together
    assert texts(served, QUESTIONS, samples=6, seed=2) != together
    assert all(len(set(each)) > 1 for each in together)
    # More samples leave the first ones as they were.
    assert [each[:2] for each in together] == texts(served, QUESTIONS, samples=2)


def test_a_problem_that_does_not_fit_is_not_solved(served: ServedModel) -> None:
    """It counts, as wrong; the others are answered."""
    long = Question(id="long", text="word " * 300, answer="1")
    longer = Question(id="longer", text="word " * 100_000, answer="1")
    measured = evaluate(served, (long, QUESTIONS[0], longer), Conditions(sampling=SHORT))
    assert [len(marked.completions) for marked in measured.marks] == [0, 1, 0]
    assert measured.as_json()["did_not_fit"] == 2
    assert measured.overall.shares.tolist()[0] == 0.0


def test_answers_are_marked_and_faults_found() -> None:
    """A right solution of our task, one with a wrong line and one cut short, each as it deserves."""
    problem = next(generate("test", 1, 1, (3,)))
    wrong = problem.solution.replace(f"The answer is: {problem.answer}", "The answer is: 999")
    samples = [problem.solution, wrong, problem.solution[:20]]
    marked = mark(
        from_task(problem, 1),
        Sampled(completions=tuple(Completion(text=text, finished=True) for text in samples), tokens=3),
        any_number=False,
    )
    assert marked.right == (True, False, False)
    assert marked.sources == ("the-answer-is", "the-answer-is", "none")
    assert marked.faults[0] == "correct"
    assert marked.faults[1] == "wrong value"
    foreign = mark(
        QUESTIONS[2],
        Sampled(completions=(Completion(text="so 4", finished=True),), tokens=1),
        any_number=True,
    )
    assert foreign.right == (True,)
    assert foreign.faults == ()


def test_groups_come_in_order_of_steps() -> None:
    """Ten steps stand behind nine, not behind one."""
    from adyton_models.evaluation import Evaluation, Mark  # noqa: PLC0415

    marks = tuple(
        Mark(
            question=Question(id=str(n), text="t", answer="1", steps=n),
            completions=(),
            right=(),
            sources=(),
            faults=(),
        )
        for n in (10, 9, 1)
    )
    measured = Evaluation(marks=marks, samples=1, tokens=0, seconds=0.0)
    assert list(measured.groups) == ["1 step", "9 steps", "10 steps"]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Problems of beta-distributed difficulty, sixteen samples each: the bootstrap covers 95 % of the time."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        rates = rng.beta(0.8, 0.8, 120)
        low, high = bootstrap(rng.binomial(16, rates) / 16)
        inside += low <= 0.5 <= high
    assert inside >= 180
    assert wilson(0, 0) == (0.0, 1.0)


def test_unanimous_samples_are_no_certainty() -> None:
    """Where all problems have one share, the interval comes from their number."""
    low, high = SampledScore(shares=np.ones(20), samples=8).interval
    assert low < 0.9
    assert high == 1.0


def test_the_spread_counts_every_problem_once() -> None:
    """Bins cover 0 to 1, and only the middle is called neither hopeless nor safe."""
    found = spread(np.array([0.0, 0.05, 0.1, 0.5, 0.95, 1.0]))
    assert sum(found["problems"]) == 6
    assert found["between_10_and_95_percent"] == 0.5


def test_the_command_measures_a_file_of_problems(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON, picture and saved completions; the same seed prints the same document but for the time."""
    pytest.importorskip("matplotlib")
    problems, saved, plot = tmp_path / "p.jsonl", tmp_path / "s.jsonl", tmp_path / "p.png"
    problems.write_text(
        "\n".join(json.dumps({"problem": q.text, "answer": q.answer, "bucket": "b"}) for q in QUESTIONS)
    )
    command = [
        "eval",
        "--model",
        str(tiny),
        "--problems",
        str(problems),
        "--samples",
        "4",
        "--max-tokens",
        "8",
    ]
    command += ["--n-ctx", "128", "--json", "--save", str(saved), "--plot", str(plot), "--show", "1"]
    documents = []
    for _ in range(2):
        assert main(command) == 0
        documents.append(json.loads(capsys.readouterr().out) | {"seconds": 0})
    assert documents[0] == documents[1]
    assert documents[0]["reproducible"] is True
    assert documents[0]["overall"]["problems"] == 6
    assert list(documents[0]["by_bucket"]) == ["b"]
    assert sum(documents[0]["spread"]["problems"]) == 6
    lines = [json.loads(line) for line in saved.read_text().splitlines()]
    assert len(lines) == 24
    assert sum(line["right"] for line in lines) == documents[0]["overall"]["right"]
    assert plot.stat().st_size > 5000
    plain = ["eval", "--model", str(tiny), "--problems", str(problems), "--n-ctx", "128", "--max-tokens", "8"]
    assert main([*plain, "--samples", "4"]) == 0
    assert "between 10 % and 95 %" in capsys.readouterr().out


def test_the_command_refuses_what_it_cannot_measure(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A faulty problem file, an unknown set, another context than the model has, a changed file, outputs that cannot
    be written: status 2 and why, before anything is measured.
    """
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{")
    catalog = tmp_path / "catalog.toml"
    shipped = read_catalog(default_catalog()).entry(None)
    catalog.write_text(
        default_catalog()
        .read_text()
        .replace(shipped.sha256, "0" * 64)
        .replace("shipped/", str(default_catalog().parent / "shipped") + "/")
    )
    for arguments, fault in (
        (["--model", str(tiny), "--problems", str(bad)], "line 1"),
        (["--model", str(tiny), "--set", "ghost"], "no problem set"),
        (["--model", str(tiny), "--n-ctx", "100000", "--n", "1"], "n_ctx"),
        (["--model", str(bad), "--n", "1"], "not a GGUF"),
        (["--catalog", str(catalog), "--n", "1"], "SHA-256 differs"),
        (["--model", "ghost.gguf", "--n", "1"], "there is no file ghost.gguf"),
        (["--model", str(tiny), "--n", "1", "--plot", str(tmp_path / "p.xyz")], "has to end in .png"),
        (["--model", str(tiny), "--n", "1", "--plot", str(tmp_path / "no" / "p.png")], "no directory"),
        (["--model", str(tiny), "--n", "1", "--save", str(tmp_path / "no" / "s.jsonl")], "no directory"),
    ):
        assert main(["eval", *arguments]) == 2
        assert fault in capsys.readouterr().err
