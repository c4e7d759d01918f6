# SPDX-License-Identifier: Apache-2.0
"""From what a caller asked for to a plan: the field, the model's name and the rest of the request have to agree.

Nothing is dropped in silence: what contradicts something else, or cannot do anything here, is refused by name.
"""

from dataclasses import dataclass, replace
from typing import Final

from adyton_enclave.api.chat_task import ChatTask
from adyton_enclave.api.generate import Served, find_model
from adyton_enclave.api.scaling_request import FIELD, Alias, Returns, ScalingCall, parse_alias
from adyton_enclave.api.types import Options, RequestLimits
from adyton_enclave.scaling.auto import method_of
from adyton_enclave.scaling.plan import EXPERIMENTAL, NEEDS_SCORER, Plan, StopRule, Strategy
from adyton_enclave.scaling.strategies import resolve
from adyton_protocol.answers import AnswerRule
from adyton_protocol.errors import InvalidRequest
from adyton_protocol.selection.candidate import SelectionRule

DEFAULT_WIDTH: Final = 8
"""Of a search that does not say how wide it shall be."""
AUTO_WIDTH: Final = 16
"""Most that ``auto`` chooses from by itself."""

_WHOLE_DOCUMENT: Final = AnswerRule(extract="field", field="", equivalence="json")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOrder:
    """A search, and what of it comes back.

    Attributes:
        asked: The strategy that was named.
        plan: What to do; its strategy is never ``auto``.
        returns: Which candidates are choices of the answer.
        most: Choices of the answer at most; None is all candidates.
        fills: Make up for missing winners with the next best of the same answer, so that there are ``most`` choices.
    """

    asked: Strategy
    plan: Plan
    returns: Returns
    most: int | None
    fills: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What else the request is about.

    Attributes:
        options: Of the request, parsed.
        served: The model.
        limits: The operator's.
        document: Whether the answer has to be a JSON document.
        tools: Whether the model may call tools.
        one_choice: Whether the endpoint's answers have one choice only.
    """

    options: Options
    served: Served
    limits: RequestLimits
    document: bool = False
    tools: bool = False
    one_choice: bool = False

    @classmethod
    def of_chat(cls, task: ChatTask, served: Served, limits: RequestLimits) -> "Occasion":
        """A conversation to go on with."""
        return cls(
            options=task.options,
            served=served,
            limits=limits,
            document=task.document is not None,
            tools=task.tools is not None,
        )


def find_searched(served: dict[str, Served], name: str) -> tuple[Served, Alias | None]:
    """The model of this name and what its name asks for; a model that bears the whole name wins.

    Raises:
        UnknownModel: There is none.
        UnsuitableModel: There is, but it does not answer.
    """
    model, alias = (name, None) if name in served else parse_alias(name)
    return find_model(served, model), alias


def order_search(
    call: ScalingCall | None, alias: Alias | None, occasion: Occasion
) -> tuple[SearchOrder | None, Options]:
    """The search that a request asks for, if any, and its options with the one seed.

    Args:
        call: What the field says.
        alias: What the model's name says.
        occasion: What the rest says.

    Raises:
        InvalidRequest: They contradict one another, or the model or the operator does not allow it.
    """
    options = occasion.options
    if call is None and alias is None:
        return None, options
    call = ScalingCall() if call is None else call
    strategy = _strategy(call, alias)
    _check_strategy(strategy, call, alias, occasion)
    n = _width(strategy, call, alias, occasion)
    k, returns = _returned(call, occasion, n)
    if call.pad_to_budget and call.budget.policy_tokens is None:
        raise _wrong("pad_to_budget", "requires scaling.budget.policy_tokens: that is what is spent")
    if call.pad_to_budget and options.logprobs is not None:
        raise _wrong("pad_to_budget", "cannot be combined with log-probabilities, whose length tells")
    plan = Plan(
        strategy=strategy,
        n=n,
        rule=_rule(strategy, call, k, document=occasion.document),
        budget=call.budget,
        stop=StopRule() if call.stop is None else call.stop,
        in_flight=occasion.limits.search_in_flight,
        pad_to_budget=call.pad_to_budget,
        experimental=call.experimental,
    )
    if call.branching is not None:
        plan = replace(plan, branching=call.branching)
    if call.balance is not None:
        plan = replace(plan, balance=call.balance)
    served = occasion.served
    plan = resolve(plan, served.model, served.scorer)
    most = 1 if returns == "best" or occasion.one_choice else k if returns == "topk" else None
    order = SearchOrder(asked=strategy, plan=_within(plan, occasion.limits), returns=returns, most=most)
    return order, _with_seed(options, call)


def order_best_of(options: Options, served: Served, limits: RequestLimits) -> SearchOrder | None:
    """``best_of`` as a weighted vote, where somebody can weigh; None where it keeps its older meaning."""
    if options.candidates <= options.n or served.scorer is None:
        return None
    plan = Plan(
        strategy="weighted",
        n=options.candidates,
        rule=SelectionRule(method="weighted", k=options.n),
        in_flight=limits.search_in_flight,
    )
    return SearchOrder(
        asked="weighted", plan=_within(plan, limits), returns="topk", most=options.n, fills=True
    )


def _wrong(member: str, problem: str) -> InvalidRequest:
    param = f"{FIELD}.{member}"
    return InvalidRequest(f"{param} {problem}", param=param)


def _strategy(call: ScalingCall, alias: Alias | None) -> Strategy:
    if alias is None:
        if call.strategy is None:
            raise _wrong("strategy", "is required")
        return call.strategy
    if call.strategy not in {None, alias.strategy}:
        raise _wrong("strategy", "contradicts the model's name")
    return alias.strategy


def _check_strategy(strategy: Strategy, call: ScalingCall, alias: Alias | None, occasion: Occasion) -> None:
    where = "model" if alias is not None else f"{FIELD}.strategy"
    if strategy in EXPERIMENTAL and not call.experimental:
        raise InvalidRequest(
            f"{strategy} is experimental, and no better than rebase: scaling.experimental asks for it all the same",
            param=where,
        )
    if strategy in NEEDS_SCORER and occasion.served.scorer is None:
        raise InvalidRequest(f"{strategy} needs a scorer, and this model has none", param=where)
    if occasion.tools and strategy != "single":
        raise InvalidRequest(
            "a search compares answers, and calls of tools are none: no tools but with single", param="tools"
        )


def _width(strategy: Strategy, call: ScalingCall, alias: Alias | None, occasion: Occasion) -> int:
    """Candidates, or width of the tree."""
    most = occasion.limits.max_search_width
    named = None if alias is None else alias.n
    if named is not None:
        if call.n not in {None, named}:
            raise _wrong("n", "contradicts the model's name")
        if named > most:
            raise InvalidRequest(f"a search is at most {most} wide", param="model")
    asked = call.n if named is None else named
    if strategy == "single":
        if asked not in {None, 1}:
            raise InvalidRequest("single has one candidate", param=f"{FIELD}.n" if named is None else "model")
        return 1
    n = min(most, AUTO_WIDTH if strategy == "auto" else DEFAULT_WIDTH) if asked is None else asked
    options, defaults = occasion.options, occasion.served.model.defaults
    temperature = defaults.temperature if options.temperature is None else options.temperature
    if n > 1 and temperature == 0.0:
        raise InvalidRequest(
            "temperature 0 makes all candidates of a search the same: leave it out, or raise it",
            param="temperature",
        )
    return n


def _returned(call: ScalingCall, occasion: Occasion, n: int) -> tuple[int, Returns]:
    """How many answers are chosen, and which candidates come back."""
    asked = occasion.options.n
    if asked > 1:
        if call.k not in {None, asked}:
            raise _wrong("k", "contradicts n")
        if call.returns not in {None, "topk"}:
            raise _wrong("return", "contradicts n, which asks for the best answers that differ")
    k = asked if call.k is None else call.k
    if k > n:
        raise _wrong("k", f"must be at most the {n} candidates")
    returns: Returns = ("topk" if k > 1 else "best") if call.returns is None else call.returns
    if occasion.one_choice and returns == "topk" and k > 1:
        raise _wrong("k", "must be 1 here: there is one answer")
    if returns == "topk" and k == 1 and call.k is None:
        raise _wrong("return", "topk requires scaling.k")
    return k, returns


def _rule(strategy: Strategy, call: ScalingCall, k: int, *, document: bool) -> SelectionRule:
    answer = call.answer
    if answer is None:
        answer = _WHOLE_DOCUMENT if document else AnswerRule()
    rule = SelectionRule(method=method_of(strategy), k=k, answer=answer)
    return rule if call.aggregate is None else replace(rule, aggregate=call.aggregate)


def _within(plan: Plan, limits: RequestLimits) -> Plan:
    """The plan with the operator's bound in its budget. ``auto`` must not take that for the caller's."""
    if plan.budget.policy_tokens is not None:
        return plan
    return replace(plan, budget=replace(plan.budget, policy_tokens=limits.max_search_tokens))


def _with_seed(options: Options, call: ScalingCall) -> Options:
    if call.seed is None:
        return options
    if options.seed not in {None, call.seed}:
        raise _wrong("seed", "contradicts seed: there is one seed")
    return replace(options, seed=call.seed)
