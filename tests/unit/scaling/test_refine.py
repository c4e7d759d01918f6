# SPDX-License-Identifier: Apache-2.0
"""Refinement: later attempts see the best and the worst of those before, and none of them is forgotten."""

import itertools
from collections.abc import Sequence

import pytest
from search_engines import GENERATOR, PROBLEM, Pair, Start, budget, request

from adyton_enclave.engine import Engine, GenerationRequest, Tree
from adyton_enclave.scaling.plan import Budget, Plan
from adyton_enclave.scaling.refine import feedback_messages
from adyton_enclave.scaling.search import Feedback
from adyton_enclave.scaling.strategies import Finding, run
from adyton_protocol.errors import InvalidRequest
from adyton_protocol.selection.candidate import SelectionRule


class Conversation:
    """Renders follow-up prompts with the model's own template, and remembers what they were about."""

    def __init__(self, pair: Pair, growth: int = 0) -> None:
        """Prompts grow by so many more tokens each time."""
        self._model = pair.engine.models[GENERATOR]
        self._growth = growth
        self.told: list[Feedback] = []
        self.prompts: list[Sequence[int]] = []

    async def follow_up(self, feedback: Feedback) -> Sequence[int]:
        """The next prompt."""
        self.told.append(feedback)
        messages = [{"role": "user", "content": PROBLEM}, *feedback_messages(feedback)]
        prompt = self._model.apply_chat_template(messages)
        self.prompts.append((*prompt, *[70] * (self._growth * len(self.told))))
        return self.prompts[-1]


def _plan(n: int, bound: Budget | None = None) -> Plan:
    rule = SelectionRule(method="best-of-n", aggregate="min")
    return Plan(strategy="refine", n=n, rule=rule, branching=3, budget=Budget() if bound is None else bound)


async def _refine(pair: Pair, plan: Plan, conversation: Conversation, seed: int) -> Finding:
    asked = request(seed)
    return await run(plan, pair.engine, pair.scorer, asked, PROBLEM, follow_up=conversation.follow_up)


async def test_later_rounds_see_the_best_and_the_worst(start_pair: Start) -> None:
    """The running best of all rounds, and the worst of the last one; the best of all is the answer."""
    pair = start_pair(n_ctx=1024)
    conversation = Conversation(pair)
    found = await _refine(pair, _plan(8), conversation, 1)
    candidates = found.outcome.candidates
    assert len(candidates) == 8
    merits = [(candidate.complete, min(candidate.scores, default=0.0)) for candidate in candidates]
    for number, feedback in enumerate(conversation.told, 1):
        seen = range(3 * number)
        assert feedback.best == candidates[max(seen, key=merits.__getitem__)].text
        assert feedback.worst == candidates[min(seen[-3:], key=merits.__getitem__)].text
    assert len(conversation.told) == 2
    assert found.outcome.selection.winners[0] == max(
        (index for index in range(8) if index not in found.outcome.selection.abstained),
        key=merits.__getitem__,
    )
    assert found.outcome.stop_reason == "complete"
    await pair.at_rest()


async def test_every_prompt_and_every_token_counts(start_pair: Start) -> None:
    """Usage and price hold all rounds; later prompts have draws of their own."""
    pair = start_pair(n_ctx=1024)
    conversation = Conversation(pair)
    found = await _refine(pair, _plan(6), conversation, 2)
    prompts = 24 + sum(map(len, conversation.prompts))
    generated = sum(candidate.n_tokens for candidate in found.outcome.candidates)
    assert found.usage.prompt_tokens == found.spent.prompt_tokens == prompts
    assert found.usage.completion_tokens == found.spent.policy_tokens == generated
    assert len({line.path for line in found.outcome.lines}) == 6


async def test_a_conversation_that_fills_the_context_ends_it(start_pair: Start) -> None:
    """What there is by then is chosen from."""
    pair = start_pair(n_ctx=512)
    conversation = Conversation(pair, growth=150)
    found = await _refine(pair, _plan(30), conversation, 3)
    assert found.outcome.stop_reason == "context"
    assert 3 <= len(found.outcome.candidates) < 30
    assert len(found.outcome.candidates) == 3 * len(conversation.told)
    await pair.at_rest()


async def test_a_spent_budget_ends_it(start_pair: Start) -> None:
    """No prompt is rendered for an attempt that cannot be paid."""
    pair = start_pair(n_ctx=1024)
    conversation = Conversation(pair)
    found = await _refine(pair, _plan(30, budget(80)), conversation, 4)
    assert found.outcome.stop_reason == "budget"
    assert found.spent.policy_tokens == 80
    assert len(found.outcome.candidates) == 3 * (1 + len(conversation.told)) < 30


class Ledgered:
    """An engine that remembers what it was asked."""

    def __init__(self, engine: Engine) -> None:
        """Pass everything on."""
        self.models = engine.models
        self.requests: list[GenerationRequest] = []
        self._open_tree = engine.open_tree

    def open_tree(self, request: GenerationRequest) -> Tree:
        """Open a tree."""
        self.requests.append(request)
        return self._open_tree(request)


async def test_the_time_limit_is_for_all_rounds_together(start_pair: Start) -> None:
    """A later prompt gets what is left of the caller's time, and no fresh start."""
    pair = start_pair(n_ctx=1024)
    engine = Ledgered(pair.engine)
    seconds = itertools.count()
    found = await run(
        _plan(8),
        engine,
        pair.scorer,
        request(5, timeout_s=1000.0),
        PROBLEM,
        clock=lambda: float(next(seconds)),
        follow_up=Conversation(pair).follow_up,
    )
    assert found.outcome.stop_reason == "complete"
    limits = [each.timeout_s for each in engine.requests if each.timeout_s is not None]
    assert limits[0] == 1000.0
    assert 1000.0 > limits[1] > limits[2] > 0.0


async def test_it_needs_a_conversation(start_pair: Start) -> None:
    """A plain completion has no turn in which to criticise."""
    pair = start_pair()
    with pytest.raises(InvalidRequest, match="conversation") as caught:
        await pair.search(_plan(6), request())
    assert caught.value.param == "scaling.strategy"


def test_feedback_is_two_turns() -> None:
    """The best answer is the model's own turn; the worst is quoted where there is one."""
    answer, request = feedback_messages(Feedback(best="4", worst="five"))
    assert answer == {"role": "assistant", "content": "4"}
    assert request["role"] == "user"
    assert request["content"].endswith("five")
    assert "worst" not in feedback_messages(Feedback(best="4", worst=None))[1]["content"]
