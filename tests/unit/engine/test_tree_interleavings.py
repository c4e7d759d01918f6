# SPDX-License-Identifier: Apache-2.0
"""A real model in a cache that is far too small, driven at random: everybody gets the bits that he gets alone.

Requests, forks, extensions, appended tokens, evaluations, prunings and cancellations come in any order; cells are lost
and computed again all the time. Log-probabilities are compared with ``==`` against one prefill of the same tokens in
an empty cache, greedy tokens with the best ones there.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tiny_gguf import TinyModel

from adyton_enclave.engine import (
    EngineConfig,
    Evaluation,
    Extension,
    GenerationRequest,
    Question,
    SamplingParams,
    Usage,
    sampling_key,
)
from adyton_enclave.engine.choice import ChoiceGroup
from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.lane import Lane
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.request import Event, TextDelta
from adyton_enclave.engine.sequence import Group, Phase
from adyton_enclave.engine.settings import OWN_SEQUENCES
from adyton_enclave.engine.tree_group import Order, Result, TreeGroup
from adyton_protocol.errors import Cancelled, EngineError

CELLS = 110
Logprobs = dict[int, float]
"""Log-probabilities by the position of the token that they are of."""


class Post:
    """Where a lane posts; stands in for the mailboxes."""

    def __init__(self, bell: Doorbell) -> None:
        self.bell = bell
        self.cancelled = self.urgent = False
        self.events: list[Event] = []
        self.of: dict[int, Result] = {}

    def post(self, *what: object) -> None:
        match what:
            case (int(number), Extension() | Evaluation() as result):
                assert number not in self.of
                self.of[number] = result
            case (event,):
                self.events.append(event)  # type: ignore[arg-type]

    def close(self, failure: EngineError | None = None) -> None:
        assert failure is None or isinstance(failure, Cancelled)

    def collect(self, usage: Usage) -> Callable[[], None]:
        raise AssertionError(usage)


class Grown:
    """A tree, and what came of its branches."""

    def __init__(self, group: TreeGroup, post: Post) -> None:
        self.group = group
        self.post = post
        self.tokens = {0: group.request.prompt_token_ids}
        self.logprobs: dict[int, Logprobs] = {0: {}}
        self.paths: dict[int, tuple[int, ...]] = {0: (0,)}
        self.forks: dict[int, int] = defaultdict(int)
        self.busy: set[int] = set()
        self.next = 1

    def idle(self) -> list[int]:
        return [number for number in self.tokens if number not in self.busy]


class Machine(RuleBasedStateMachine):
    """A lane, stepped by hand."""

    def __init__(self, lane: Lane, alone: Lane, n_ids: int) -> None:
        super().__init__()
        self.lane, self.reference, self.n_ids = lane, alone, n_ids
        loop = asyncio.new_event_loop()
        self.bell = Doorbell(loop)
        self.bell.close()
        loop.close()
        self.trees: list[Grown] = []
        self.requests: list[tuple[ChoiceGroup, Post]] = []
        self.checked: dict[tuple[int, ...], Evaluation] = {}

    def _request(
        self, seed: int, length: int, max_tokens: int, n: int, temperature: float
    ) -> GenerationRequest:
        return GenerationRequest(
            model="tiny",
            prompt_token_ids=tuple(np.random.default_rng(seed).integers(70, 275, length).tolist()),
            max_tokens=max_tokens,
            key=sampling_key(seed),
            n=n,
            logprobs=0,
            sampling=SamplingParams(temperature=temperature),
            tenant=str(seed % 2),
        )

    @rule(
        seed=st.integers(0, 5),
        length=st.integers(1, 40),
        answer=st.integers(1, 12),
        n=st.integers(1, 3),
        temperature=st.sampled_from([0.0, 1.0]),
    )
    def submit(self, seed: int, length: int, answer: int, n: int, temperature: float) -> None:
        post = Post(self.bell)
        group = ChoiceGroup(self._request(seed, length, answer, n, temperature), post, None)  # type: ignore[arg-type]
        self.requests.append((group, post))
        self.lane.add(group)

    @rule(seed=st.integers(0, 5), length=st.integers(1, 40), temperature=st.sampled_from([0.0, 1.0]))
    def open_tree(self, seed: int, length: int, temperature: float) -> None:
        post = Post(self.bell)
        group = TreeGroup(self._request(seed, length, CELLS - length, 1, temperature), post, None)
        self.trees.append(Grown(group, post))
        self.lane.add(group)

    @precondition(lambda self: self.trees)
    @rule(tree=st.integers(0), branch=st.integers(0), n=st.integers(1, 3))
    def fork(self, tree: int, branch: int, n: int) -> None:
        grown = self.trees[tree % len(self.trees)]
        if not (idle := grown.idle()):
            return
        number = idle[branch % len(idle)]
        for _ in range(n):
            path = (*grown.paths[number], grown.forks[number])
            grown.forks[number] += 1
            child, grown.next = grown.next, grown.next + 1
            grown.tokens[child], grown.paths[child] = grown.tokens[number], path
            grown.logprobs[child] = dict(grown.logprobs[number])
            self._order(grown, partial(grown.group.fork, number=number, child=child, path=path))

    @precondition(lambda self: self.trees)
    @rule(tree=st.integers(0), count=st.integers(1, 9))
    def extend_all(self, tree: int, count: int) -> None:
        grown = self.trees[tree % len(self.trees)]
        for number in grown.idle():
            if len(grown.tokens[number]) + count <= CELLS:
                grown.busy.add(number)
                self._order(grown, partial(grown.group.extend, number=number, until=(), max_tokens=count))

    @precondition(lambda self: self.trees)
    @rule(
        tree=st.integers(0),
        branch=st.integers(0),
        tokens=st.lists(st.integers(70, 274), max_size=10),
        where=st.lists(st.integers(-30, -1), min_size=1, max_size=6),
    )
    def append_and_evaluate(self, tree: int, branch: int, tokens: list[int], where: list[int]) -> None:
        grown = self.trees[tree % len(self.trees)]
        if not (idle := grown.idle()):
            return
        number = idle[branch % len(idle)]
        length = len(grown.tokens[number]) + len(tokens)
        if length > CELLS:
            return
        grown.busy.add(number)
        grown.tokens[number] += tuple(tokens)
        self._order(grown, partial(grown.group.append, number=number, token_ids=tuple(tokens)))
        question = Question(positions=tuple(max(at, -length) for at in where))
        self._order(grown, partial(grown.group.evaluate, number=number, question=question))

    @precondition(lambda self: self.trees)
    @rule(tree=st.integers(0), branch=st.integers(0))
    def prune(self, tree: int, branch: int) -> None:
        grown = self.trees[tree % len(self.trees)]
        if grown.tokens:
            number = list(grown.tokens)[branch % len(grown.tokens)]
            self._order(grown, partial(grown.group.prune, number=number))
            self._judge(grown, number)
            grown.busy.discard(number)
            del grown.tokens[number]

    @precondition(lambda self: self.trees)
    @rule(tree=st.integers(0))
    def close(self, tree: int) -> None:
        self._close(self.trees.pop(tree % len(self.trees)))

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0))
    def cancel(self, which: int) -> None:
        group, post = self.requests.pop(which % len(self.requests))
        post.cancelled = True
        self.lane.sweep(0.0)
        assert all(choice.phase is Phase.DONE and choice.lease is None for choice in group.sequences)

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def _order(self, grown: Grown, command: Callable[..., None]) -> None:
        self.lane.obey(Order(grown.group, command))

    def _step(self) -> None:
        self.lane.sweep(0.0)
        self.lane.step()
        self.lane.erase()
        for grown in self.trees:
            for number, result in grown.post.of.items():
                grown.busy.discard(number)
                if isinstance(result, Extension):
                    start = len(grown.tokens[number])
                    grown.tokens[number] += result.token_ids
                    grown.logprobs[number].update(
                        (start + i, token.logprob) for i, token in enumerate(result.logprobs)
                    )
                else:
                    alone = self._alone(grown.tokens[number])
                    for row, at in enumerate(result.positions):
                        assert result.logsumexp[row] == alone.logsumexp[at]
                        assert np.array_equal(result.next_logits[row], alone.next_logits[at], equal_nan=True)
            grown.post.of.clear()

    def _alone(self, tokens: tuple[int, ...]) -> Evaluation:
        """One prefill in an empty cache."""
        if tokens not in self.checked:
            post = Post(self.bell)
            request = GenerationRequest(model="tiny", prompt_token_ids=tokens, max_tokens=1, key=bytes(32))
            group = TreeGroup(request, post, None)
            self.reference.add(group)
            question = Question(positions=tuple(range(len(tokens))), n_top=1)
            self.reference.obey(Order(group, partial(group.evaluate, number=0, question=question)))
            while not post.of:
                self.reference.step()
            self.reference.fail(group, Cancelled("done"))
            self.reference.erase()
            result = post.of[0]
            assert isinstance(result, Evaluation)
            self.checked[tokens] = result
        return self.checked[tokens]

    def _judge(self, grown: Grown, number: int) -> None:
        """A branch's tokens and log-probabilities are those that its tokens give alone."""
        sampling = grown.group.request.sampling
        self._compare(grown.tokens[number], grown.logprobs[number], greedy=sampling.temperature == 0)

    def _compare(self, tokens: tuple[int, ...], found: Logprobs, *, greedy: bool) -> None:
        alone = self._alone(tokens)
        for at, logprob in found.items():
            assert logprob == alone.next_logprobs[at - 1]
            assert not greedy or tokens[at] == alone.top_ids[at - 1, 0]

    def _close(self, grown: Grown) -> None:
        for number in grown.tokens:
            self._judge(grown, number)
        grown.post.cancelled = True
        self.lane.sweep(0.0)
        assert not grown.group.sequences

    @invariant()
    def llama_holds_what_the_books_say(self) -> None:
        """Every sequence has as many cells as are computed of it, by llama.cpp's own count; other ids have none."""
        lane = self.lane
        groups: list[Group] = [group for group, _ in self.requests] + [grown.group for grown in self.trees]
        held = {s.seq_id: s.n_computed for g in groups for s in g.sequences if s.n_computed}
        assert {seq_id: n for seq_id in range(self.n_ids) if (n := lane.context.length(seq_id))} == held
        assert lane.budget.used <= lane.budget.total

    def teardown(self) -> None:
        """All comes to its end, is right, and leaves nothing."""
        for _ in range(3000):
            if not self.lane.busy:
                break
            self._step()
            self.llama_holds_what_the_books_say()
        assert not self.lane.busy
        for group, post in self.requests:
            request = group.request
            for choice in group.sequences:
                assert choice.phase is Phase.DONE
                assert choice.n_generated == request.max_tokens
                found = [
                    t
                    for e in post.events
                    if isinstance(e, TextDelta) and e.index == choice.index
                    for t in e.logprobs
                ]
                logprobs = {group.n_prompt + i: token.logprob for i, token in enumerate(found)}
                assert len(logprobs) == request.max_tokens
                self._compare(tuple(choice.token_ids), logprobs, greedy=request.sampling.temperature == 0)
        for grown in self.trees:
            assert not grown.busy
            self._close(grown)
        self.lane.erase()
        assert self.lane.budget.used == 0
        # The plug and the eraser have ids of their own.
        assert not any(self.lane.context.length(seq_id) for seq_id in range(self.n_ids + OWN_SEQUENCES))


@pytest.mark.parametrize("sizes", [{"max_sequences": 3}, {"max_sequences": 8, "prefill_tokens": 5}])
def test_any_interleaving_computes_what_each_computes_alone(tiny: TinyModel, sizes: dict[str, int]) -> None:
    """Bit for bit, and afterwards nothing is left in the cache."""
    model = LlamaModel(str(tiny.path), tiny.pin)
    lane = Lane(model, EngineConfig(threads=1, n_ctx_total=CELLS, n_batch=24, n_ubatch=24, **sizes))  # type: ignore[arg-type]
    alone = Lane(model, EngineConfig(threads=1, n_ctx_total=512, max_sequences=1))
    try:
        run_state_machine_as_test(
            partial(Machine, lane, alone, sizes["max_sequences"]),
            settings=settings(
                max_examples=15, stateful_step_count=30, deadline=None, report_multiple_bugs=False
            ),
        )
    finally:
        lane.close()
        alone.close()
        model.close()
