# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: a scorer that reads one token off, mixes up its labels or has another head is not loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_scorers import TinyScorer, make_head, write_head
from unit.scoring.test_scorer_conventions import PROBLEM, STEPS

from adyton_enclave.scoring import Scorer, parse_adapter
from adyton_enclave.scoring.calibration import Calibration, Piecewise, Platt
from adyton_enclave.scoring.files import Ingredients
from adyton_models.cli import main
from adyton_models.golden import Vector, make_golden, read_vectors, with_calibration, with_golden
from adyton_models.scoring import ScorerRunner, read_ingredients
from adyton_protocol.errors import AdapterError, ConfigError, GoldenMismatch

Start = Callable[..., Scorer]
Scorers = Callable[[str], TinyScorer]


def _vectors(name: str) -> list[Vector]:
    steps = STEPS[name]
    return [Vector(problem=PROBLEM, steps=steps), Vector(problem=f"{PROBLEM} Say!", steps=steps[::-1])]


def _runner(tiny: TinyScorer, adapter: Path | bytes | None = None, head: Path | None = None) -> ScorerRunner:
    return ScorerRunner(tiny.path, adapter or tiny.adapter, head=head or tiny.head, n_ctx=512, parallel=8)


def _check(runner: ScorerRunner, make: Callable[[Ingredients], Scorer], ingredients: Ingredients) -> None:
    runner.scorer = make(ingredients)
    runner.check_golden()


def _golden(tiny: TinyScorer) -> bytes:
    with _runner(tiny) as runner:
        return with_golden(tiny.adapter.read_bytes(), make_golden(runner, _vectors(tiny.name), 0.001))


def _edits(tiny: TinyScorer, text: str) -> list[str]:
    """The adapter with each fault in turn."""
    adapter = parse_adapter(text.encode())
    bare = text.replace(f"[read]\noffset = {adapter.offset}\n", "")
    offsets = (adapter.offset - 1, adapter.offset + 1)
    edits = [
        bare.replace("[tag]", f"[read]\noffset = {offset}\n\n[tag]")
        for offset in offsets
        if adapter.kind != "next-token" or offset < 0
    ]
    if adapter.labels is not None:
        edits.append(
            bare.replace("good = {", "once = {").replace("bad = {", "good = {").replace("once = {", "bad = {")
        )
    assert len({*edits, text}) == len(edits) + 1, "every edit is another adapter"
    return edits


def test_faults_fail_the_golden_check(tiny: TinyScorer, tmp_path: Path) -> None:
    """The right adapter passes; one read one token off, with swapped labels or another head does not load."""
    with _runner(tiny) as runner:
        golden = with_golden(tiny.adapter.read_bytes(), make_golden(runner, _vectors(tiny.name), 0.001))
        right = runner.scorer
        runner.scorer = right.with_ingredients(read_ingredients(golden, tiny.head))
        runner.check_golden()
        for faulty in _edits(tiny, golden.decode()):
            # A read position outside of the step is refused even without golden vectors.
            with pytest.raises((GoldenMismatch, AdapterError)):
                _check(runner, right.with_ingredients, read_ingredients(faulty.encode(), tiny.head))
        if tiny.head is not None:
            other = tmp_path / "head.gguf"
            sizes = [tiny.layers[0][0].shape[1], *(len(bias) for _, bias in tiny.layers)]
            write_head(other, make_head(sizes, 99))
            runner.scorer = right.with_ingredients(read_ingredients(golden, other))
            with pytest.raises(GoldenMismatch, match="step 1"):
                runner.check_golden()


def test_a_scorer_without_golden_vectors_is_not_loaded(scorers: Scorers) -> None:
    """Nothing would tell a wrong read position, so there is no such thing as an unchecked scorer."""
    with _runner(scorers("skywork")) as runner, pytest.raises(GoldenMismatch, match="adyton-models golden"):
        runner.check_golden()


def test_vectors_that_would_notice_nothing_are_refused(scorers: Scorers, tmp_path: Path) -> None:
    """A scorer that says the same of everything has no golden vectors, and the message says what would pass."""
    tiny = scorers("skywork")
    blind = tmp_path / "head.gguf"
    write_head(blind, [(np.zeros_like(tiny.layers[0][0]), np.zeros(1))])
    with _runner(tiny, head=blind) as runner:
        with pytest.raises(ConfigError, match="a read offset of -1, another head"):
            make_golden(runner, _vectors(tiny.name))
        # The faults that were committed on purpose are undone.
        assert runner.score(PROBLEM, STEPS[tiny.name]) == [0.5] * 3


def test_vectors_of_somebody_else_must_agree(scorers: Scorers) -> None:
    """Scores that come with the vectors are those of another implementation, and decide."""
    tiny = scorers("math-shepherd")
    steps = STEPS[tiny.name]
    with _runner(tiny) as runner:
        scores = runner.score(PROBLEM, steps)
        right = Vector(problem=PROBLEM, steps=steps, expected=tuple(scores))
        assert make_golden(runner, [right], 0.001)[0].scores == pytest.approx(scores, abs=1e-6)
        wrong = Vector(problem=PROBLEM, steps=steps, expected=(*scores[:-1], abs(scores[-1] - 0.2)))
        with pytest.raises(ConfigError, match="vector 1: the scorer is off by"):
            make_golden(runner, [wrong], 0.001)


def test_many_are_scored_as_one_by_one(scorers: Scorers) -> None:
    """The runner's batch gives the bits of single calls, in order, and reports progress."""
    tiny = scorers("adyton-words-scorer")
    pairs = [(PROBLEM, [f"Eva = {n}", f"Tom = {n}"][: n % 3]) for n in range(20)]
    done: list[int] = []
    with _runner(tiny) as runner:
        together = runner.score_many(pairs, done.append)
        assert together == [runner.score(problem, steps) for problem, steps in pairs]
        assert sorted(done) == list(range(1, 21))
        with pytest.raises(ConfigError, match="solution 2"):
            runner.score_many([pairs[1], (" ", ["1"])])
        assert runner.split(" a\n\n b") == [" a", " b"]


def test_calibration_and_golden_vectors_are_written_into_adapters(scorers: Scorers) -> None:
    """They are read back as they were; what cannot be placed is refused."""
    plain = scorers("adyton-words-scorer").adapter.read_bytes()
    curve = Piecewise(x=(0.1, 0.5, 0.9), y=(0.0, 0.25, 1.0))
    for calibration in (
        Calibration(curve=Platt(a=1.5, b=-0.25), auc=0.99, threshold=0.4, n_steps=1000),
        Calibration(curve=curve, n_steps=3),
    ):
        made = with_calibration(plain, calibration)
        assert parse_adapter(made).calibration == calibration
        with pytest.raises(ConfigError, match="already"):
            with_calibration(made, calibration)
    golden = _golden(scorers("adyton-words-scorer"))
    again = with_golden(golden, parse_adapter(golden).golden[:1])
    assert parse_adapter(again).golden == parse_adapter(golden).golden[:1]
    assert parse_adapter(golden).digest != parse_adapter(plain).digest
    with pytest.raises(ConfigError, match="end"):
        with_golden(golden + b"\n[read]\noffset = 0\n[calibration]\nthreshold = 0.4\n", ())


def test_calibrated_scores_are_what_golden_vectors_hold(scorers: Scorers) -> None:
    """A calibration that is edited afterwards is noticed."""
    tiny = scorers("adyton-words-scorer")
    made = with_calibration(tiny.adapter.read_bytes(), Calibration(curve=Platt(a=2.0, b=0.5)))
    with _runner(tiny, made) as runner:
        golden = with_golden(made, make_golden(runner, _vectors(tiny.name), 0.001))
    with _runner(tiny, golden) as runner:
        runner.check_golden()
    edited = golden.replace(b"b = 0.5", b"b = 0.4")
    with _runner(tiny, edited) as runner, pytest.raises(GoldenMismatch):
        runner.check_golden()


def test_the_commands_make_and_use_an_adapter(
    scorers: Scorers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`golden` writes what `score` checks; both print for people and for programs."""
    tiny = scorers("math-shepherd")
    vectors = tmp_path / "vectors.jsonl"
    rows = [{"problem": PROBLEM, "solution": "\n".join(STEPS[tiny.name])}]
    vectors.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "made.toml"
    scorer = ["--model", str(tiny.path), "--n-ctx", "512"]
    made = ["--adapter", str(tiny.adapter), "--from", str(vectors), "--tolerance", "0.001", "--out", str(out)]
    assert main(["golden", *scorer, *made]) == 0
    assert "1 golden vectors" in capsys.readouterr().out
    asked = ["score", *scorer, "--adapter", str(out), "--problem", PROBLEM]
    assert main([*asked, "--solution", rows[0]["solution"], "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["step"].strip() for row in answer["steps"]] == list(STEPS[tiny.name])
    assert set(answer["aggregate"]) == {"last", "min", "prod", "mean"}
    assert main([*asked, "--solution", "1 + 1 = 2"]) == 0
    assert "mean" in capsys.readouterr().out
    out.write_bytes(out.read_bytes().replace(b"scores = [0.", b"scores = [1.0, 0."))
    assert main([*asked, "--solution", "1"]) == 2
    assert "scores must be as many as steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "0 vectors"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: not an object"),
        ('{"problem": "1"}', "steps"),
        ('{"problem": "1", "steps": [1]}', "steps"),
        ('{"problem": "1", "steps": ["1"], "scores": [2]}', "scores"),
        ('{"problem": "1", "steps": ["1"], "scores": []}', "scores"),
        ('{"problem": "1", "steps": ["1"]}\n' * 65, "65 vectors"),
    ],
)
def test_a_bad_file_of_vectors_names_its_line(
    scorers: Scorers, tmp_path: Path, text: str, problem: str
) -> None:
    """What is wrong is said before a model is asked."""
    path = tmp_path / "vectors.jsonl"
    path.write_text(text)
    adapter = parse_adapter(scorers("skywork").adapter.read_bytes())
    with pytest.raises(ConfigError, match=problem):
        read_vectors(path, adapter)
