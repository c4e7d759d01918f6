# SPDX-License-Identifier: Apache-2.0
"""A step judged by how likely a generator finds it: the shipped one, against a slow reference on llama.cpp alone."""

import math

import numpy as np
import pytest
from tiny_scorers import ADAPTERS, TinyScorer
from unit.scoring.test_scorer_conventions import Reference, Start

from adyton_enclave.scoring import Scorer, parse_adapter
from adyton_models.catalog import default_catalog, read_catalog
from adyton_models.golden import Vector, make_golden, with_golden
from adyton_models.scoring import ScorerRunner, read_ingredients
from adyton_protocol.errors import AdapterError, ConfigError, GoldenMismatch

ADAPTER = ADAPTERS / "likelihood.toml"
PROBLEM = (
    "Sam ordered 3 muffins. Uma ordered twice as many muffins as Sam. Jonas ordered 21 more muffins than Uma. "
    "How many muffins did Jonas order?"
)
RIGHT = ("Sam = 3", "Uma: Sam = 3, 3 x 2 = 6, Uma = 6", "Jonas: Uma = 6, 6 + 21 = 27, Jonas = 27")
WRONG = ("Sam = 3", "Uma: Sam = 3, 3 + 2 = 5, Uma = 5", "Jonas: Uma = 5, 5 + 21 = 26, Jonas = 26")


@pytest.fixture(scope="module")
def shipped() -> TinyScorer:
    """The shipped generator, asked as a scorer."""
    entry = read_catalog(default_catalog()).entry(None)
    return TinyScorer("generator", default_catalog().parent / entry.file, ADAPTER, None)


def _expected(reference: Reference, steps: tuple[str, ...]) -> list[float]:
    """The smallest product of probabilities so far, from all logits of the whole text."""
    token_ids = reference.tokenize(f"<s><|user|> {PROBLEM}<|assistant|>", special=True)
    spans = []
    for step in steps:
        line = reference.tokenize(f" {step}")
        spans.append((len(token_ids), len(token_ids) + len(line)))
        token_ids += [*line, *reference.tokenize("\n")]
    logits, _ = reference.compute(token_ids)
    exact = logits.astype(np.float64)
    logprobs = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    likelihoods = [math.exp(sum(logprobs[at - 1, token_ids[at]] for at in range(*span))) for span in spans]
    return [min(likelihoods[: count + 1]) for count in range(len(steps))]


@pytest.mark.parametrize("steps", [RIGHT, WRONG], ids=["right", "wrong"])
async def test_a_step_is_as_sound_as_it_is_likely(
    shipped: TinyScorer, start: Start, steps: tuple[str, ...]
) -> None:
    """The score is the likelihood of the least likely step so far, whole and step by step, bit for bit."""
    scorer = start(shipped)
    scores, _ = await scorer.score(PROBLEM, steps)
    assert scores == pytest.approx(_expected(Reference(shipped), steps), abs=2e-3, rel=2e-2)
    with scorer.open(PROBLEM) as tree:
        assert tuple([(await tree.root.extend(step))[0] for step in steps]) == scores


async def test_a_wrong_step_is_unlikely(shipped: TinyScorer, start: Start) -> None:
    """The generator doubts a line that takes the wrong operation, and all that stand on it."""
    scorer = start(shipped)
    right, _ = await scorer.score(PROBLEM, RIGHT)
    wrong, _ = await scorer.score(PROBLEM, WRONG)
    assert wrong[0] == right[0]
    assert all(bad < 0.1 * good for bad, good in zip(wrong[1:], right[1:], strict=True))


async def test_forks_share_what_they_have_in_common(shipped: TinyScorer, start: Start) -> None:
    """Branches score as whole answers do, though the token before their first one was read by another branch."""
    scorer = start(shipped)
    with scorer.open(PROBLEM) as tree:
        await tree.root.extend(RIGHT[0])
        first, second = tree.root.fork(2)
        await first.extend(*RIGHT[1:])
        await second.extend(*WRONG[1:])
    assert first.scores == (await scorer.score(PROBLEM, RIGHT))[0]
    assert second.scores == (await scorer.score(PROBLEM, WRONG))[0]


def test_golden_vectors_hold_it_to_its_model(shipped: TinyScorer) -> None:
    """The golden check passes, and fails for vectors of another problem."""
    vectors = [Vector(problem=PROBLEM, steps=RIGHT), Vector(problem=PROBLEM, steps=WRONG)]
    with ScorerRunner(shipped.path, ADAPTER, n_ctx=512, parallel=4) as runner:
        text = with_golden(ADAPTER.read_bytes(), make_golden(runner, vectors, 0.01))
        bare: Scorer = runner.scorer
        runner.scorer = bare.with_ingredients(read_ingredients(text, None))
        runner.check_golden()
        runner.scorer = bare.with_ingredients(
            read_ingredients(text.replace(b"3 muffins", b"9 muffins"), None)
        )
        with pytest.raises(GoldenMismatch):
            runner.check_golden()


def test_golden_vectors_that_would_be_the_same_of_any_problem_are_refused(shipped: TinyScorer) -> None:
    """Nonsense is unlikely whatever the problem says, so it would not notice one that is left out."""
    nonsense = [Vector(problem=PROBLEM, steps=("zzz qqq",))]
    with (
        ScorerRunner(shipped.path, ADAPTER, n_ctx=512, parallel=4) as runner,
        pytest.raises(ConfigError, match="a problem that is not read"),
    ):
        make_golden(runner, nonsense, 0.01)


@pytest.mark.parametrize(
    "addition",
    [
        '[tag]\ntext = "<step>"\nid = 6\n',
        "[read]\noffset = 0\n",
        '[labels]\ngood = { text = "<+>", id = 7 }\nbad = { text = "<->", id = 8 }\n',
        '[head]\nactivation = "sigmoid"\n',
    ],
)
def test_what_it_does_not_use_is_refused(addition: str) -> None:
    """A key without effect would look like one that has some."""
    with pytest.raises(AdapterError):
        parse_adapter(ADAPTER.read_bytes() + b"\n" + addition.encode())


def test_a_tag_has_no_place_in_its_layout() -> None:
    """Nothing marks the end of a step but the text itself."""
    with pytest.raises(AdapterError, match=r"framing\.step must hold"):
        parse_adapter(ADAPTER.read_bytes().replace(b"{step}", b"{step}{tag}"))
