# SPDX-License-Identifier: Apache-2.0
"""The member ``scaling`` and the alias in a model's name: whatever comes is a call within bounds or a named refusal."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.api.chat_request import parse_chat_request
from adyton_enclave.api.scaling_request import ScalingCall, parse_alias
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.scaling.plan import STRATEGIES, StopRule
from adyton_protocol.answers import AnswerRule
from adyton_protocol.errors import InvalidRequest

LIMITS = RequestLimits(max_candidates=4, max_prompts=1, max_search_width=16, max_search_tokens=1000)
MEMBERS = (
    "strategy", "n", "k", "budget", "aggregate", "stop", "answer", "seed", "pad_to_budget", "return", "balance",
    "branching", "experimental", "policy_tokens", "total_flops", "ms", "kind", "p", "window", "extract", "field",
    "equivalence", "other",
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from([*STRATEGIES, "esc", "beta", "all", "best", "min", "boxed", "number"])
    | st.sampled_from([0, 1, 8, 16, 17, 1000, 1001, 2**63, 10**400, -1, 0.5, 1.0, 1e308])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=12,
)


def parse(scaling: object) -> ScalingCall | None:
    """Parse a chat with this member."""
    return parse_raw(json.dumps(scaling))


def parse_raw(scaling: str) -> ScalingCall | None:
    """The same, of JSON as it stands."""
    body = f'{{"messages": [{{"role": "user", "content": "x"}}], "scaling": {scaling}}}'
    return parse_chat_request(body.encode(), LIMITS).scaling


def test_everything_can_be_said() -> None:
    """And comes out typed."""
    call = parse(
        {
            "strategy": "rebase", "n": 8, "k": 2,
            "budget": {"policy_tokens": 1000, "total_flops": 1e12, "ms": 1500},
            "aggregate": "min", "stop": {"kind": "beta", "p": 0.9, "window": 4},
            "answer": {"field": "answer", "equivalence": "number"}, "seed": -(2**63),
            "pad_to_budget": True, "return": "all", "balance": 0.1, "branching": 2, "experimental": True,
        }
    )  # fmt: skip
    assert call is not None
    assert (call.strategy, call.n, call.k, call.aggregate) == ("rebase", 8, 2, "min")
    assert (call.budget.policy_tokens, call.budget.total_flops, call.budget.time_s) == (1000, 1e12, 1.5)
    assert call.stop == StopRule(kind="beta", p=0.9, window=4)
    assert call.answer == AnswerRule(field="answer", equivalence="number")
    assert (call.seed, call.returns, call.balance, call.branching) == (-(2**63), "all", 0.1, 2)
    assert call.pad_to_budget
    assert call.experimental


@pytest.mark.parametrize(
    "nothing", ["null", "{}", '{"n": null, "budget": null, "stop": null, "nobody": null}']
)
def test_null_counts_as_absent(nothing: str) -> None:
    """Everywhere."""
    assert parse_raw(nothing) in {None, ScalingCall()}


@pytest.mark.parametrize(
    ("scaling", "param"),
    [
        ("5", "scaling"),
        ("[]", "scaling"),
        ('"rebase-8"', "scaling"),
        ('{"strategy": "Rebase"}', "scaling.strategy"),
        ('{"strategy": 5}', "scaling.strategy"),
        ('{"n": 0}', "scaling.n"),
        ('{"n": 17}', "scaling.n"),
        ('{"n": -1}', "scaling.n"),
        ('{"n": 8.0}', "scaling.n"),
        ('{"n": true}', "scaling.n"),
        ('{"n": "8"}', "scaling.n"),
        (f'{{"n": {10**300}}}', "scaling.n"),
        ('{"k": 0}', "scaling.k"),
        ('{"budget": 100}', "scaling.budget"),
        ('{"budget": {"policy_tokens": 0}}', "scaling.budget.policy_tokens"),
        ('{"budget": {"policy_tokens": 1001}}', "scaling.budget.policy_tokens"),
        ('{"budget": {"total_flops": 0}}', "scaling.budget.total_flops"),
        ('{"budget": {"total_flops": -1e9}}', "scaling.budget.total_flops"),
        ('{"budget": {"total_flops": 1e999}}', "scaling.budget.total_flops"),
        ('{"budget": {"ms": 0}}', "scaling.budget.ms"),
        ('{"budget": {"ms": 1.5}}', "scaling.budget.ms"),
        ('{"budget": {"tokens": 5}}', "scaling.budget.tokens"),
        ('{"stop": {}}', "scaling.stop.kind"),
        ('{"stop": {"kind": "soon"}}', "scaling.stop.kind"),
        ('{"stop": {"kind": "beta", "p": 0.5}}', "scaling.stop.p"),
        ('{"stop": {"kind": "beta", "p": 1}}', "scaling.stop.p"),
        ('{"stop": {"kind": "esc", "window": 1}}', "scaling.stop.window"),
        ('{"answer": {"extract": "anywhere"}}', "scaling.answer"),
        ('{"answer": {"extract": "field"}}', "scaling.answer"),
        ('{"answer": {"where": "boxed"}}', "scaling.answer.where"),
        ('{"seed": 9223372036854775808}', "scaling.seed"),
        ('{"return": "some"}', "scaling.return"),
        ('{"balance": 0}', "scaling.balance"),
        ('{"balance": 1e400}', "scaling.balance"),
        ('{"branching": 0}', "scaling.branching"),
        ('{"pad_to_budget": 1}', "scaling.pad_to_budget"),
        ('{"width": 8}', "scaling.width"),
    ],
)
def test_what_is_wrong_is_named(scaling: str, param: str) -> None:
    """With its path, and without its value."""
    with pytest.raises(InvalidRequest) as caught:
        parse_raw(scaling)
    assert caught.value.param == param


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_json_has_no_number_for_is_no_json(number: str) -> None:
    """Python's parser would take it."""
    with pytest.raises(InvalidRequest, match="not a valid JSON document"):
        parse_raw(f'{{"budget": {{"total_flops": {number}}}}}')


@given(JSON)
def test_whatever_comes_is_a_call_within_bounds_or_a_refusal(value: Any) -> None:
    """No other error, and nothing beyond the operator's bounds."""
    refused: InvalidRequest | None = None
    call: ScalingCall | None = None
    try:
        call = parse(value)
    except InvalidRequest as error:
        refused = error
    assert refused is None or (refused.param or "").startswith("scaling")
    if call is None:
        return
    assert call.n is None or 1 <= call.n <= LIMITS.max_search_width
    assert call.k is None or 1 <= call.k <= LIMITS.max_search_width
    tokens = call.budget.policy_tokens
    assert tokens is None or 1 <= tokens <= LIMITS.max_search_tokens
    assert call.budget.total_flops is None or 0 < call.budget.total_flops < float("inf")
    assert call.balance is None or call.balance > 0


@given(st.sampled_from(STRATEGIES), st.integers(1, 9999), st.text(min_size=1, max_size=20))
def test_an_alias_is_cut_off_behind_the_last_mark(strategy: str, n: int, model: str) -> None:
    """The rest is the model's name, whatever it is."""
    name, alias = parse_alias(f"{model}@{strategy}-{n}")
    assert (name, alias and alias.strategy, alias and alias.n) == (model, strategy, n)
    name, alias = parse_alias(f"{model}@{strategy}")
    assert (name, alias and alias.strategy, alias and alias.n) == (model, strategy, None)


@given(st.text(max_size=40))
def test_any_other_name_is_left_alone(name: str) -> None:
    """Nothing is cut off that was not understood."""
    model, alias = parse_alias(name)
    if alias is None:
        assert model == name
    else:
        assert name.startswith(f"{model}@")


def test_best_of_n_may_be_called_as_it_is_called() -> None:
    """``best-of-8`` is what people write."""
    assert parse_alias("m@best-of-8")[1] == parse_alias("m@best-of-n-8")[1]
