# SPDX-License-Identifier: Apache-2.0
"""The way in: from a plan and a request to a search under way, and to its end.

::

    finding = await run(plan, engine, scorer, request, problem)
    best = finding.outcome.candidates[finding.outcome.selection.winners[0]]

Whatever happens, an error or a cancellation included, nothing of a search is left in the engine.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final, Protocol

from adyton_enclave.engine import GenerationRequest, Tree, Usage
from adyton_enclave.scaling import beam, dvts, mcts, rebase, refine, sampling
from adyton_enclave.scaling.auto import choose
from adyton_enclave.scaling.calibration import calibration_for
from adyton_enclave.scaling.ledger import Prices, Spent
from adyton_enclave.scaling.padding import pad
from adyton_enclave.scaling.plan import NEEDS_SCORER, Plan, Strategy
from adyton_enclave.scaling.search import LINES, Feedback, Outcome, Progress, Replant, Search
from adyton_enclave.scoring.adapter import Adapter
from adyton_enclave.scoring.scorer import ScoringTree
from adyton_enclave.scoring.terms import ScoringTerms
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ContextOverflow, InvalidRequest, UnknownModel, UnsuitableModel

Run = Callable[[Search], Awaitable[Outcome]]

FollowUp = Callable[[Feedback], Awaitable[Sequence[int]]]
"""Renders the prompt of another attempt: the conversation, and what ``refine.feedback_messages`` adds to it."""

RUNS: Final[Mapping[Strategy, Run]] = {
    "single": sampling.run_single,
    "majority": sampling.run,
    "weighted": sampling.run,
    "best-of-n": sampling.run,
    "bom": sampling.run,
    "rpc": sampling.run,
    "pairwise": sampling.run,
    "rebase": rebase.run,
    "beam": beam.run,
    "dvts": dvts.run,
    "mcts": mcts.run,
    "refine": refine.run,
}
"""What runs under each name; ``auto`` is one of the others."""

MAX_N: Final = 1024
"""More candidates than anybody has shown to help; operators allow fewer."""

_FLOPS_PER_PARAMETER: Final = 2.0


class Measured(Protocol):
    """A loaded model, its size and its cost. :class:`adyton_enclave.engine.LoadedModel` fits."""

    @property
    def n_params(self) -> int:
        """Numbers in its tensors."""
        ...

    @property
    def n_ctx(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def content(self) -> Digest:
        """Digest of what its files hold."""
        ...


class Generators(Protocol):
    """Where trees grow. :class:`adyton_enclave.engine.Engine` fits."""

    @property
    def models(self) -> Mapping[str, Measured]:
        """Loaded models by name."""
        ...

    def open_tree(self, request: GenerationRequest) -> Tree:
        """Open a tree search, or raise an EngineError at once."""
        ...


class Judge(Protocol):
    """Who scores steps. :class:`adyton_enclave.scoring.Scorer` fits."""

    @property
    def adapter(self) -> Adapter:
        """How it is asked, what a step is, and what was measured with it."""
        ...

    @property
    def model(self) -> Measured:
        """What it costs."""
        ...

    def open(self, problem: str, terms: ScoringTerms) -> ScoringTree:
        """Begin to score answers to a problem, or raise an EngineError at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A search that has come to its end.

    Attributes:
        plan: What was done: of ``auto``, what it chose.
        outcome: Candidates and the choice among them.
        spent: On all of it, padding included.
        usage: Tokens of the generator: its prompt once, and every token that it generated.
    """

    plan: Plan
    outcome: Outcome
    spent: Spent
    usage: Usage


def resolve(plan: Plan, generator: Measured, scorer: Judge | None) -> Plan:
    """What ``auto`` stands for with these models; another plan as it is."""
    calibrations = () if scorer is None else scorer.adapter.scaling
    return choose(plan, calibration_for(calibrations, generator.content), scores=scorer is not None)


def open_search(  # noqa: PLR0913 - two models, one request, and who watches
    plan: Plan,
    engine: Generators,
    scorer: Judge | None,
    request: GenerationRequest,
    problem: str,
    *,
    notify: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    follow_up: FollowUp | None = None,
) -> Search:
    """Open the trees of a search, the scorer's only if the plan needs it. Use the result as a context manager.

    Args:
        plan: What to do; not ``auto``.
        engine: Of the generator.
        scorer: Of the generator's answers; None where there is none.
        request: The ordinary request for one answer. Log-probabilities are asked for if it does not.
        problem: What the scorer is told is asked (attacker-controlled).
        notify: Is told how far the search is, in the event loop.
        clock: Of a budget of time: seconds, monotonic.
        follow_up: For ``refine``: where an answer goes on from a conversation.

    Raises:
        UnsuitableModel: The strategy needs a scorer.
        InvalidRequest: Too many candidates, or a budget without a token for each; the problem is blank; or ``refine``
            has no conversation to go on with.
        ContextOverflow: Prompt or problem do not fit.
        EngineError: Why a model could not be asked.
    """
    _check(plan, scorer)
    if plan.strategy == "refine" and follow_up is None:
        raise InvalidRequest(
            "refine tells the model of its earlier answers, so it needs a conversation",
            param="scaling.strategy",
        )
    generator = _find(engine, request.model)
    scores = scorer if plan.strategy in NEEDS_SCORER else None
    request = replace(request, n=1, logprobs=0 if request.logprobs is None else request.logprobs)
    terms = ScoringTerms(
        tenant=request.tenant,
        timeout_s=request.timeout_s,
        priority=request.priority,
        cache_namespace=request.cache_namespace,
    )
    with ExitStack() as stack:
        tree = stack.enter_context(engine.open_tree(request))
        scoring = None if scores is None else stack.enter_context(scores.open(problem, terms))
        search = Search(
            plan,
            tree,
            scoring,
            splitter=LINES if scores is None else scores.adapter.splitter,
            prices=Prices(
                generator=_FLOPS_PER_PARAMETER * generator.n_params,
                scorer=0.0 if scores is None else _FLOPS_PER_PARAMETER * scores.model.n_params,
            ),
            notify=notify,
            clock=clock,
        )
        if follow_up is not None:
            search.replanter = _replanting(engine, request, generator.n_ctx, follow_up, clock)
        left = search.ledger.tokens_left
        if left is not None and left < plan.n:
            raise InvalidRequest(
                f"after the prompt, the budget leaves {left} tokens for {plan.n} candidates",
                param="scaling.budget",
            )
        stack.pop_all()
    return search


async def run(  # noqa: PLR0913 - as above
    plan: Plan,
    engine: Generators,
    scorer: Judge | None,
    request: GenerationRequest,
    problem: str,
    *,
    notify: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    follow_up: FollowUp | None = None,
) -> Finding:
    """Run a plan to its end. Cancelling the waiting task stops everything within one step.

    Arguments and errors are those of :func:`open_search`; ``auto`` is resolved first.

    Raises:
        EngineError: What ended the search early.
    """
    plan = resolve(plan, _find(engine, request.model), scorer)
    return await conduct(
        open_search(plan, engine, scorer, request, problem, notify=notify, clock=clock, follow_up=follow_up)
    )


async def conduct(search: Search) -> Finding:
    """Run an open search to its end, and close it. Cancelling the waiting task stops everything within one step.

    Raises:
        EngineError: What ended the search early.
    """
    with search:
        plan = search.plan
        outcome = await RUNS[plan.strategy](search)
        await pad(search)
        return Finding(plan=plan, outcome=outcome, spent=search.ledger.spent, usage=search.usage)


def _replanting(
    engine: Generators,
    request: GenerationRequest,
    n_ctx: int,
    follow_up: FollowUp,
    clock: Callable[[], float],
) -> Replant:
    began_s = clock()

    async def replant(feedback: Feedback, n_before: int) -> Tree:
        prompt = tuple(await follow_up(feedback))
        left = n_ctx - len(prompt)
        if left < 1:
            raise ContextOverflow(
                f"the prompt has {len(prompt)} tokens, but the context holds {n_ctx}, answer included"
            )
        timeout_s = request.timeout_s
        return engine.open_tree(
            replace(
                request,
                prompt_token_ids=prompt,
                max_tokens=min(request.max_tokens, left),
                first_choice=request.first_choice + n_before,
                # The caller's time limit is for the answer, not for each prompt.
                timeout_s=None if timeout_s is None else max(0.0, timeout_s - (clock() - began_s)),
            )
        )

    return replant


def _find(engine: Generators, name: str) -> Measured:
    model = engine.models.get(name)
    if model is None:
        raise UnknownModel("no model of this name is loaded", param="model")
    return model


def _check(plan: Plan, scorer: Judge | None) -> None:
    if not 1 <= plan.n <= MAX_N:
        raise InvalidRequest(f"a search has 1 to {MAX_N} candidates", param="scaling.n")
    if plan.strategy in NEEDS_SCORER and scorer is None:
        raise UnsuitableModel(
            f"{plan.strategy} needs a scorer, and the operator gave this model none; majority and rpc need none",
            param="scaling.strategy",
        )
    budget = plan.budget
    bounds = [
        bound for bound in (budget.policy_tokens, budget.total_flops, budget.time_s) if bound is not None
    ]
    if not all(0 < bound < math.inf for bound in bounds):
        raise InvalidRequest("bounds of a budget are positive numbers", param="scaling.budget")
    if plan.pad_to_budget and not bounds:
        raise InvalidRequest("pad_to_budget needs a budget to spend", param="scaling.pad_to_budget")
