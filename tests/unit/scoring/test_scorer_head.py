# SPDX-License-Identifier: Apache-2.0
"""Head files: read by our own parser, exact where they fit, a typed error where they do not."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_scorers import TinyScorer, make_head, write_head

from adyton_enclave.scoring import Scorer
from adyton_enclave.scoring.head import read_head
from adyton_protocol.errors import AdapterError

Layers = list[tuple[np.ndarray, np.ndarray]]


def _file(directory: Path, layers: Layers) -> bytes:
    path = directory / "head.gguf"
    write_head(path, layers)
    return path.read_bytes()


def test_a_head_computes_its_layers(tmp_path: Path) -> None:
    """Against numpy in double precision: a linear layer, and two with a ReLU between them."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal(48).astype(np.float32)
    ((weight, bias),) = one = list(make_head((48, 1), 1))
    head = read_head(_file(tmp_path, one), "sigmoid")
    assert head.score(hidden) == pytest.approx(1 / (1 + np.exp(-(weight @ hidden + bias)[0])), abs=1e-5)
    (first, second) = two = list(make_head((48, 20, 2), 2))
    logits = second[0] @ np.maximum(first[0] @ hidden + first[1], 0) + second[1]
    head = read_head(_file(tmp_path, two), "softmax")
    assert (head.width, head.n_weights) == (48, 48 * 20 + 40)
    assert head.score(hidden) == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), abs=1e-5)


def test_a_score_does_not_depend_on_where_a_state_lies(tmp_path: Path) -> None:
    """The same bits from a row of a matrix, from a copy, and from an odd address."""
    head = read_head(_file(tmp_path, list(make_head((96, 96, 2), 3))), "softmax")
    rows = np.random.default_rng(1).standard_normal((5, 96)).astype(np.float32)
    odd = np.empty(97, dtype=np.float32)[1:]
    for row in rows:
        odd[:] = row
        assert head.score(row) == head.score(row.copy()) == head.score(odd)


@pytest.mark.parametrize(
    ("layers", "activation"),
    [
        ([(np.ones((2, 8)), np.ones(2))], "sigmoid"),
        ([(np.ones((1, 8)), np.ones(1))], "softmax"),
        ([(np.ones((4, 8)), np.ones(4)), (np.ones((2, 5)), np.ones(2))], "softmax"),
        ([(np.ones((2, 8)), np.ones(3))], "softmax"),
        ([(np.full((1, 8), np.nan), np.ones(1))], "sigmoid"),
        ([(np.full((1, 8), np.inf), np.ones(1))], "sigmoid"),
        ([(np.ones((1, 8)), np.ones(1))] * 3, "sigmoid"),
        ([(np.ones((1, 8, 1)), np.ones(1))], "sigmoid"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(tmp_path: Path, layers: Layers, activation: str) -> None:
    """Other outputs than the activation's, layers that do not fit onto one another, no numbers, more layers."""
    with pytest.raises(AdapterError):
        read_head(_file(tmp_path, layers), "sigmoid" if activation == "sigmoid" else "softmax")


@given(data=st.data())
def test_hostile_bytes_are_a_head_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any bytes, and a head file that was cut or edited anywhere."""
    whole = _file(tmp_path_factory.mktemp("heads"), list(make_head((4, 1), 1)))
    at = data.draw(st.integers(0, len(whole) - 1))
    hostile = data.draw(
        st.binary(max_size=100)
        | st.just(whole[:at])
        | st.integers(0, 255).map(lambda byte: whole[:at] + bytes([byte]) + whole[at + 1 :])
    )
    with contextlib.suppress(AdapterError):
        read_head(hostile, "sigmoid")


def test_a_head_of_another_width_or_none_at_all_is_refused(
    scorers: Callable[[str], TinyScorer], start: Callable[..., Scorer], tmp_path: Path
) -> None:
    """It must take the model's hidden states, and stand beside an adapter that asks for it."""
    tiny = scorers("skywork")
    scorer = start(tiny)
    narrow = tmp_path / "narrow.gguf"
    write_head(narrow, list(make_head((8, 1), 1)))
    assert scorer.head is not None
    ingredients = type(tiny.files().read())
    with pytest.raises(AdapterError, match="hidden states"):
        scorer.with_ingredients(ingredients(scorer.adapter, read_head(narrow.read_bytes(), "sigmoid")))
    with pytest.raises(AdapterError, match="head file"):
        ingredients(scorer.adapter)
