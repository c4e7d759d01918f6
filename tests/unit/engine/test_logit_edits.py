# SPDX-License-Identifier: Apache-2.0
"""Bias, penalties and grammar: what a request does to its own logits, and that the engine obeys."""

from collections.abc import Callable
from typing import Self

import numpy as np
import pytest
from engine_calls import answers, request
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import TinyModel

from adyton_enclave.engine import Engine, GenerationRequest, SamplingParams, TokenMask
from adyton_enclave.engine.logit_edits import LogitEdits
from adyton_protocol.errors import InvalidRequest

N_VOCAB = 300
Start = Callable[..., Engine]
_TOKENS = st.lists(st.integers(0, N_VOCAB - 1), max_size=80)


class Allowed:
    """A grammar of one rule: tokens of one set, at every place."""

    def __init__(self, *token_ids: int) -> None:
        self._mask = np.zeros((N_VOCAB + 31) // 32, dtype=np.uint32)
        for token_id in token_ids:
            self._mask[token_id // 32] |= np.uint32(1 << token_id % 32)
        self.accepted: list[int] = []

    def matcher(self) -> Self:
        """It has no state."""
        return self

    def fork(self) -> Self:
        """As above."""
        return self

    def allowed(self) -> TokenMask:
        """The set."""
        return self._mask

    def accept(self, token_id: int) -> None:
        """Remember."""
        self.accepted.append(token_id)


def _wanted(prompt: list[int], **fields: object) -> GenerationRequest:
    return request(prompt_token_ids=tuple(prompt or [1]), **fields)


@given(
    prompt=_TOKENS,
    answer=_TOKENS,
    frequency=st.sampled_from([-1.5, 0.0, 0.25]),
    presence=st.sampled_from([0.0, 2.0]),
    repetition=st.sampled_from([0.5, 1.0, 1.25]),
    data=st.data(),
)
def test_penalties_and_bias_equal_their_definition(
    prompt: list[int],
    answer: list[int],
    frequency: float,
    presence: float,
    repetition: float,
    data: st.DataObject,
) -> None:
    """Repetition looks at prompt and answer, frequency and presence at the answer alone, bias at nothing."""
    bias = data.draw(
        st.dictionaries(st.integers(0, N_VOCAB - 1), st.sampled_from([-100.0, -0.5, 3.0]), max_size=5)
    )
    sampling = SamplingParams(
        frequency_penalty=frequency, presence_penalty=presence, repetition_penalty=repetition
    )
    wanted = _wanted(prompt, sampling=sampling, logit_bias=tuple(bias.items()))
    row = np.random.default_rng(len(answer)).standard_normal(N_VOCAB).astype(np.float32)
    expected = row.astype(np.float64)
    for token_id in range(N_VOCAB):
        expected[token_id] += bias.get(token_id, 0.0)
        if token_id in wanted.prompt_token_ids or token_id in answer:
            expected[token_id] *= 1 / repetition if expected[token_id] > 0 else repetition
        count = answer.count(token_id)
        expected[token_id] -= frequency * count + presence * (count > 0)
    edits = LogitEdits(wanted, wanted.prompt_token_ids, answer)
    edits.apply(row)
    assert row == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(prompt=_TOKENS, answer=_TOKENS)
def test_the_state_follows_from_the_tokens(prompt: list[int], answer: list[int]) -> None:
    """Token by token or all at once: so a choice that was computed again goes on with the same logits."""
    sampling = SamplingParams(frequency_penalty=0.5, repetition_penalty=1.2)
    wanted = _wanted(prompt, sampling=sampling)
    stepwise, at_once = LogitEdits(wanted, prompt, ()), LogitEdits(wanted, prompt, answer)
    for token_id in answer:
        stepwise.accept(token_id)
    first, second = np.ones(N_VOCAB, dtype=np.float32), np.ones(N_VOCAB, dtype=np.float32)
    stepwise.apply(first)
    at_once.apply(second)
    assert np.array_equal(first, second)


def test_most_requests_leave_logits_alone() -> None:
    """No state is kept for them."""
    assert not LogitEdits.wanted(request())
    assert LogitEdits.wanted(request(logit_bias=((3, 1.0),)))
    assert LogitEdits.wanted(request(constraint=Allowed(1)))
    for name, value in (("repetition_penalty", 1.1), ("presence_penalty", -1), ("frequency_penalty", 1)):
        assert LogitEdits.wanted(request(sampling=SamplingParams(**{name: value})))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_only_what_the_grammar_allows_is_drawn(
    tiny: TinyModel, start: Start, temperature: float
) -> None:
    """Greedy or not, whatever the model prefers, for every choice; log-probabilities stay those of the model."""
    engine = start(tiny)
    grammar = Allowed(70, 71, 72)
    wanted = request(
        max_tokens=20, n=2, constraint=grammar, sampling=SamplingParams(temperature=temperature, top_k=40)
    )
    pieces = {engine.models["tiny"].detokenize([token_id]) for token_id in (70, 71, 72)}
    choices = await answers(engine, wanted)
    assert len(grammar.accepted) == 40
    for choice in choices:
        assert {piece for piece, _ in choice.tokens} <= pieces
        assert any(logprob < np.log(0.5) for _, logprob in choice.tokens)


async def test_bias_decides_a_greedy_draw(tiny: TinyModel, start: Start) -> None:
    """A token with enough bias is always drawn, one with as much against it never."""
    engine = start(tiny)
    favoured = await answers(
        engine, request(sampling=SamplingParams(temperature=0), logit_bias=((80, 100.0),))
    )
    piece = engine.models["tiny"].detokenize([80])
    assert {bytes_ for bytes_, _ in favoured[0].tokens} == {piece}
    banned = await answers(
        engine, request(sampling=SamplingParams(temperature=5), logit_bias=((80, -100.0),), max_tokens=200)
    )
    assert piece not in {bytes_ for bytes_, _ in banned[0].tokens}


async def test_a_frequency_penalty_ends_repetition(tiny: TinyModel, start: Start) -> None:
    """Greedy decoding of one favoured token moves on once its count outweighs the bias."""
    engine = start(tiny)
    wanted = request(
        sampling=SamplingParams(temperature=0, frequency_penalty=30.0),
        logit_bias=((80, 100.0),),
        max_tokens=12,
    )
    drawn = [piece for piece, _ in (await answers(engine, wanted))[0].tokens]
    piece = engine.models["tiny"].detokenize([80])
    assert drawn[0] == piece
    assert 2 <= drawn.count(piece) <= 5


async def test_control_tokens_show_where_a_caller_asks(tiny: TinyModel, start: Start) -> None:
    """They vanish from text otherwise; what is shown is the spelling of exactly the tokens asked for."""
    engine = start(tiny)
    drawn = {"max_tokens": 3, "constraint": Allowed(2, 3), "sampling": SamplingParams(temperature=5)}
    (hidden,) = await answers(engine, request(**drawn))
    (shown,) = await answers(engine, request(**drawn, visible_control_ids=frozenset({2, 3})))
    assert hidden.text == ""
    assert shown.text.replace("<|system|>", "").replace("<|user|>", "") == ""
    assert shown.text.count("|>") == 3


async def test_bias_for_no_token_is_refused(tiny: TinyModel, start: Start) -> None:
    """An id outside the vocabulary would write beside the logits."""
    engine = start(tiny)
    for token_id in (-1, tiny.n_vocab):
        with pytest.raises(InvalidRequest) as caught:
            engine.submit(request(logit_bias=((token_id, 1.0),)))
        assert caught.value.param == "logit_bias"
