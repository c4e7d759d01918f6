# SPDX-License-Identifier: Apache-2.0
"""``scaling``: how a caller asks for a search, parsed at the edge.

SECURITY: this member and the model's name are the only places from which a search is controlled. No prompt is looked
at, because whoever writes a part of a prompt is not whoever pays for the answer.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar, get_args

from adyton_enclave.api.fields import Fields
from adyton_enclave.api.types import MAX_DEADLINE_MS, MAX_SEED, RequestLimits
from adyton_enclave.scaling.plan import STOP_KINDS, STRATEGIES, Budget, StopKind, StopRule, Strategy
from adyton_protocol.answers import AnswerRule
from adyton_protocol.answers.limits import MAX_FIELD_CHARACTERS
from adyton_protocol.errors import InvalidRequest
from adyton_protocol.selection.aggregate import AGGREGATES, Aggregate

FIELD: Final = "scaling"
MAX_FLOPS: Final = 1e24
MAX_BALANCE: Final = 100.0
MIN_CERTAINTY: Final = 0.5
MAX_CERTAINTY: Final = 0.9999
MIN_WINDOW: Final = 2
MAX_NAME_CHARS: Final = 32

Returns = Literal["best", "topk", "all"]
"""``best``: the winner. ``topk``: up to ``k`` winners, with answers that differ. ``all``: every candidate, winners
first, and the transcript from which the choice can be made again."""
RETURNS: Final[tuple[Returns, ...]] = get_args(Returns)

Word = TypeVar("Word", bound=str)

_ALIAS: Final = re.compile(r"(?P<strategy>[a-z]+(?:-[a-z]+)*)(?:-(?P<n>[1-9][0-9]{0,3}))?")
_ALIAS_MARK: Final = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingCall:
    """A parsed ``scaling``. None means: not said.

    Attributes:
        strategy: Which search.
        n: Candidates, or width of the tree.
        k: Answers to give, of different classes.
        budget: What it may spend.
        aggregate: How step scores become one.
        stop: When a vote ends early.
        answer: How an answer is read.
        seed: The request's own.
        pad_to_budget: Spend the whole budget, whatever the question.
        returns: Which candidates come back.
        balance: Temperature of REBASE.
        branching: Children of a node.
        experimental: The caller accepts strategies that are no better than others.
    """

    strategy: Strategy | None = None
    n: int | None = None
    k: int | None = None
    budget: Budget = field(default_factory=Budget)
    aggregate: Aggregate | None = None
    stop: StopRule | None = None
    answer: AnswerRule | None = None
    seed: int | None = None
    pad_to_budget: bool = False
    returns: Returns | None = None
    balance: float | None = None
    branching: int | None = None
    experimental: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """What a model's name asks for behind ``@``."""

    strategy: Strategy
    n: int | None


def parse_scaling(fields: Fields, limits: RequestLimits) -> ScalingCall | None:
    """Take the attacker-controlled member; None when it is not there.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    members = fields.members(FIELD)
    if members is None:
        return None
    call = ScalingCall(
        strategy=_one_of(members, "strategy", STRATEGIES),
        n=members.whole("n", low=1, high=limits.max_search_width),
        k=members.whole("k", low=1, high=limits.max_search_width),
        budget=_budget(members, limits),
        aggregate=_one_of(members, "aggregate", AGGREGATES),
        stop=_stop(members, limits),
        answer=_answer(members),
        seed=members.whole("seed", low=-MAX_SEED - 1, high=MAX_SEED),
        pad_to_budget=members.flag("pad_to_budget"),
        returns=_one_of(members, "return", RETURNS),
        balance=members.real("balance", low=0.0, high=MAX_BALANCE, above_low=True),
        branching=members.whole("branching", low=1, high=limits.max_search_width),
        experimental=members.flag("experimental"),
    )
    members.finish()
    return call


def parse_alias(name: str) -> tuple[str, Alias | None]:
    """Cut ``name@rebase-8`` into the model's name and what it asks for.

    Args:
        name: Attacker-controlled.

    Returns:
        The name as it is and None, if what stands behind the last ``@`` is no strategy with or without a width.
    """
    model, mark, wish = name.rpartition(_ALIAS_MARK)
    found = _ALIAS.fullmatch(wish) if mark and model else None
    if found is None:
        return name, None
    named = {"best-of": "best-of-n"}.get(found["strategy"], found["strategy"])
    for strategy in STRATEGIES:
        if strategy == named:
            return model, Alias(strategy=strategy, n=None if found["n"] is None else int(found["n"]))
    return name, None


def _budget(members: Fields, limits: RequestLimits) -> Budget:
    budget = members.members("budget")
    if budget is None:
        return Budget()
    ms = budget.whole("ms", low=1, high=MAX_DEADLINE_MS)
    parsed = Budget(
        policy_tokens=budget.whole("policy_tokens", low=1, high=limits.max_search_tokens),
        total_flops=budget.real("total_flops", low=0.0, high=MAX_FLOPS, above_low=True),
        time_s=None if ms is None else ms / 1000,
    )
    budget.finish()
    return parsed


def _stop(members: Fields, limits: RequestLimits) -> StopRule | None:
    stop = members.members("stop")
    if stop is None:
        return None
    kind: StopKind | None = _one_of(stop, "kind", STOP_KINDS)
    if kind is None:
        raise stop.wrong("kind", "is required")
    standard = StopRule()
    p = stop.real("p", low=MIN_CERTAINTY, high=MAX_CERTAINTY, above_low=True)
    window = stop.whole("window", low=MIN_WINDOW, high=max(MIN_WINDOW, limits.max_search_width))
    stop.finish()
    return StopRule(
        kind=kind, p=standard.p if p is None else p, window=standard.window if window is None else window
    )


def _answer(members: Fields) -> AnswerRule | None:
    answer = members.members("answer")
    if answer is None:
        return None
    rule: dict[str, object] = {
        "extract": answer.text("extract", max_chars=MAX_NAME_CHARS),
        "field": answer.text("field", max_chars=MAX_FIELD_CHARACTERS),
        "equivalence": answer.text("equivalence", max_chars=MAX_NAME_CHARS),
    }
    answer.finish()
    path = members.name("answer")
    try:
        return AnswerRule.parse(rule, path=path, error=InvalidRequest)
    except InvalidRequest as error:
        error.param = path
        raise


def _one_of(members: Fields, field: str, words: tuple[Word, ...]) -> Word | None:
    value = members.text(field, max_chars=MAX_NAME_CHARS)
    if value is None:
        return None
    for word in words:
        if word == value:
            return word
    raise members.wrong(field, f"must be one of {', '.join(words)}")
