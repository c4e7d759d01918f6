# SPDX-License-Identifier: Apache-2.0
"""Scheduler, books and trees without llama.cpp: any interleaving of orders computes what each sequence gives alone.

In place of a model stands a function of the tokens *in the cells*, so a wrong share, a lost cell or a cell of somebody
else shows as a wrong token. After every action the books are compared with the cells.
"""

import asyncio
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adyton_enclave.engine import Evaluation, Extension, GenerationRequest, Question, Usage
from adyton_enclave.engine.choice import ChoiceGroup
from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.generation import Mailbox
from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.outputs import Outputs
from adyton_enclave.engine.prefix_cache import PrefixCache
from adyton_enclave.engine.request import Priority
from adyton_enclave.engine.scheduler import PATIENCE_STEPS, Scheduler, Work
from adyton_enclave.engine.sequence import Group, Phase, Sequence
from adyton_enclave.engine.tree_group import Result, TreeGroup
from adyton_protocol.errors import EngineError

N_VOCAB = 11
Tokens = tuple[int, ...]


def _logits(tokens: Tokens) -> np.ndarray:
    return np.array([zlib.crc32(bytes((*tokens, t))) % 1009 for t in range(N_VOCAB)], dtype=np.float32)


def _draw(row: np.ndarray, path: Tokens) -> int:
    """The best token, turned by the path, so that forks part."""
    return int(row.argmax() + sum(path)) % N_VOCAB


def _alone(tokens: Tokens, path: Tokens, count: int) -> Tokens:
    """What a sequence generates with nobody around."""
    for _ in range(count):
        tokens = (*tokens, _draw(_logits(tokens), path))
    return tokens


class Cells:
    """KV memory that holds tokens, and computes from what it holds."""

    def __init__(self) -> None:
        self.of: dict[int, list[int]] = defaultdict(list)
        self.tokens: list[int] = []

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.of[target], "a fork goes into an empty sequence"
        assert len(self.of[source]) >= length, "a fork shares what is there"
        self.of[target] = self.of[source][:length]

    def truncate(self, seq_id: int, length: int) -> None:
        assert length < len(self.of[seq_id])
        del self.of[seq_id][length:]

    def remove(self, seq_id: int) -> None:
        self.of.pop(seq_id)

    def holds(self, seq_id: int) -> Tokens:
        return tuple(self.tokens[cell] for cell in self.of.get(seq_id, ()))

    def compute(self, work: list[Work]) -> list[np.ndarray]:
        rows = []
        for item in work:
            sequence, cells = item.sequence, self.of[item.sequence.seq_id]
            assert len(cells) == item.start, "tokens go to the end of their sequence"
            for offset, token in enumerate(sequence.token_ids[item.start : item.start + item.count]):
                cells.append(len(self.tokens))
                self.tokens.append(token)
                if offset in item.probed or (item.wants_logits and offset == item.count - 1):
                    rows.append(_logits(self.holds(sequence.seq_id)))
        return rows

    @property
    def used(self) -> int:
        return len(set().union(*map(set, self.of.values())))


class Results:
    """Where a tree posts; stands in for the mailbox."""

    def __init__(self, bell: Doorbell) -> None:
        self.bell = bell
        self.cancelled = self.urgent = False
        self.of: dict[int, Result] = {}

    def post(self, number: int, result: Result) -> None:
        assert number not in self.of, "one result at a time"
        self.of[number] = result

    def close(self, failure: EngineError | None = None) -> None:
        raise AssertionError(failure)

    def collect(self, usage: Usage) -> Callable[[], None]:
        raise AssertionError(usage)


class Grown:
    """What the caller of a tree believes."""

    def __init__(self, group: TreeGroup, results: Results) -> None:
        self.group = group
        self.results = results
        self.tokens: dict[int, Tokens] = {0: group.request.prompt_token_ids}
        self.paths: dict[int, Tokens] = {0: (0,)}
        self.forks: dict[int, int] = defaultdict(int)
        self.asked: dict[int, Question | int] = {}
        self.next = 1
        self.generated = self.appended = 0

    def collect(self) -> None:
        """Take results and check them against what the branches give alone."""
        for number, result in self.results.of.items():
            asked = self.asked.pop(number)
            tokens = self.tokens[number]
            if isinstance(result, Extension):
                assert isinstance(asked, int)
                self.tokens[number] = _alone(tokens, self.paths[number], asked)
                assert (*tokens, *result.token_ids) == self.tokens[number]
                assert result.text == "x" * asked
                self.generated += asked
            else:
                assert isinstance(asked, Question)
                _check_evaluation(tokens, asked, result)
        self.results.of.clear()

    def idle(self) -> list[int]:
        return [number for number in self.tokens if number not in self.asked]


def _check_evaluation(tokens: Tokens, asked: Question, result: Evaluation) -> None:
    assert result.positions == tuple(sorted({at % len(tokens) for at in asked.positions}))
    for row, at in enumerate(result.positions):
        logits = _logits(tokens[: at + 1])
        assert result.label_logits[row].tolist() == logits[list(asked.label_ids)].tolist()
        assert at + 1 == len(tokens) or result.next_logits[row] == logits[tokens[at + 1]]


class Interleavings(RuleBasedStateMachine):
    """A lane without a model, driven at random."""

    @initialize(
        cells=st.integers(24, 70),
        max_sequences=st.integers(1, 7),
        n_batch=st.integers(7, 20),
        prefill=st.integers(1, 20),
        kept=st.integers(0, 2),
    )
    def start(self, cells: int, max_sequences: int, n_batch: int, prefill: int, kept: int) -> None:
        loop = asyncio.new_event_loop()
        self.bell = Doorbell(loop)
        self.bell.close()
        loop.close()
        self.budget = KvBudget(cells)
        self.memory = Cells()
        self.ids = max_sequences
        self.longest = cells
        self.cache = PrefixCache(self.memory, range(max_sequences, max_sequences + kept), cells // 3)
        self.scheduler = Scheduler(
            budget=self.budget,
            memory=self.memory,
            max_sequences=max_sequences,
            n_batch=n_batch,
            prefill_tokens=lambda _decoding: prefill,
            cache=self.cache,
        )
        self.n_batch = n_batch
        self.trees: list[Grown] = []
        self.requests: list[ChoiceGroup] = []

    @rule(n=st.integers(1, 3), count=st.integers(1, 12), steps=st.integers(0, 9), who=st.sampled_from("ab"))
    def grow_everything(self, n: int, count: int, steps: int, who: str) -> None:
        """Most of what can go wrong takes many branches."""
        self.open_tree(prompt=[1, 2, 3], who=who, low=False)
        for tree in range(len(self.trees)):
            self.fork(tree, 0, n)
            self.extend(tree, 0, count, everybody=True)
        self.step(steps)

    def _request(
        self, tokens: list[int], max_tokens: int, n: int, who: str, *, low: bool
    ) -> GenerationRequest:
        priority: Priority = "low" if low else "normal"
        return GenerationRequest(
            model="m",
            prompt_token_ids=tuple(tokens),
            max_tokens=max_tokens,
            key=bytes(32),
            n=n,
            tenant=who,
            priority=priority,
            cache_namespace=bytes(32) if who == "a" else None,
        )

    @rule(
        prompt=st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=12),
        answer=st.integers(1, 8),
        n=st.integers(1, 3),
        who=st.sampled_from("ab"),
        low=st.booleans(),
    )
    def submit(self, prompt: list[int], answer: int, n: int, who: str, low: bool) -> None:
        mailbox = Mailbox(self.bell, Usage(prompt_tokens=0, completion_tokens=0))
        group = ChoiceGroup(self._request(prompt, answer, n, who, low=low), mailbox, None)
        self.requests.append(group)
        self.scheduler.add(group)

    @rule(
        prompt=st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=12),
        who=st.sampled_from("ab"),
        low=st.booleans(),
    )
    def open_tree(self, prompt: list[int], who: str, low: bool) -> None:
        results = Results(self.bell)
        request = self._request(prompt, self.longest - len(prompt), 1, who, low=low)
        group = TreeGroup(request, results, None)
        self.trees.append(Grown(group, results))
        self.scheduler.add(group)

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
            grown.group.fork(self.scheduler, number, child, path)

    @precondition(lambda self: self.trees)
    @rule(tree=st.integers(0), branch=st.integers(0), count=st.integers(1, 15), everybody=st.booleans())
    def extend(self, tree: int, branch: int, count: int, everybody: bool) -> None:
        grown = self.trees[tree % len(self.trees)]
        idle = grown.idle()
        for number in idle if everybody else idle[branch % max(1, len(idle)) :][:1]:
            if len(grown.tokens[number]) + count <= self.longest:
                grown.asked[number] = count
                grown.group.extend(self.scheduler, number, (), count)

    @precondition(lambda self: self.trees)
    @rule(
        tree=st.integers(0),
        branch=st.integers(0),
        tokens=st.lists(st.integers(0, N_VOCAB - 1), max_size=8),
        where=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    )
    def append_and_evaluate(self, tree: int, branch: int, tokens: list[int], where: list[int]) -> None:
        grown = self.trees[tree % len(self.trees)]
        if not (idle := grown.idle()):
            return
        number = idle[branch % len(idle)]
        if len(grown.tokens[number]) + len(tokens) > self.longest:
            return
        grown.group.append(self.scheduler, number, tuple(tokens))
        grown.tokens[number] += tuple(tokens)
        grown.appended += len(tokens)
        length = len(grown.tokens[number])
        question = Question(positions=tuple(at % length for at in where), label_ids=(0, 3))
        grown.asked[number] = question
        grown.group.evaluate(self.scheduler, number, question)

    @precondition(lambda self: self.trees)
    @rule(tree=st.integers(0), branch=st.integers(0))
    def prune(self, tree: int, branch: int) -> None:
        grown = self.trees[tree % len(self.trees)]
        if not grown.tokens:
            return
        number = list(grown.tokens)[branch % len(grown.tokens)]
        sequence = next(s for s in grown.group.sequences if s.number == number)
        grown.group.prune(self.scheduler, number)
        for of in (grown.tokens, grown.asked, grown.results.of):
            of.pop(number, None)
        # Within the step: it runs no more, and holds nothing unless a fork that never ran wants it.
        assert sequence not in self.scheduler.running
        assert sequence.phase is (Phase.RETIRED if sequence.lease else Phase.DONE)
        assert sequence.lease is None or sequence.n_unborn

    @precondition(lambda self: self.trees)
    @rule(tree=st.integers(0))
    def close(self, tree: int) -> None:
        self._close(self.trees.pop(tree % len(self.trees)))

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0))
    def cancel(self, which: int) -> None:
        self.scheduler.drop_all(self.requests.pop(which % len(self.requests)))

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def _step(self) -> None:
        work = self.scheduler.plan()
        assert sum(item.count for item in work) <= min(self.n_batch, self.budget.free)
        assert len({id(item.sequence) for item in work}) == len(work)
        assert all(item.sequence.phase is Phase.RUNNING for item in work)
        layout = [(item.sequence, item.wants_logits, len(item.probed)) for item in work]
        rows = self.memory.compute(work)
        assert len(rows) <= self.ids
        assert len(rows) == sum(draws + probed for _, draws, probed in layout)
        self.scheduler.advance(work)
        for sequence, draws, probed in layout:
            mine, rows = rows[: draws + probed], rows[draws + probed :]
            if sequence.probe is not None:
                assert sequence.probe.read(
                    Outputs.of(np.array(mine).reshape(-1, N_VOCAB)), sequence.token_ids
                )
                if not sequence.n_remaining:
                    self.scheduler.pause(sequence)
                    sequence.report()
            elif draws:
                phase = sequence.take(_draw(mine[0], sequence.path), b"x", None)
                if phase is Phase.PAUSED:
                    self.scheduler.pause(sequence)
                elif phase is Phase.DONE:
                    self.scheduler.finish(sequence)
        for grown in self.trees:
            grown.collect()

    def _close(self, grown: Grown) -> None:
        usage = grown.group.usage
        assert usage.completion_tokens >= grown.generated
        assert usage.prompt_tokens == len(grown.group.request.prompt_token_ids) + grown.appended
        self.scheduler.drop_all(grown.group)
        assert not grown.group.sequences

    def _groups(self) -> list[Group]:
        return [*self.requests, *(grown.group for grown in self.trees)]

    @invariant()
    def the_books_are_right(self) -> None:
        """Used cells are the union of all sequences' cells, and each of them holds its own tokens and no others."""
        if not hasattr(self, "budget"):
            return
        assert self.memory.used == self.budget.used <= self.budget.total
        holders: list[Sequence] = [s for g in self._groups() for s in g.sequences if s.lease is not None]
        for sequence in holders:
            assert self.memory.holds(sequence.seq_id) == tuple(sequence.token_ids[: sequence.n_computed])
            assert sequence.lease is not None
            assert sequence.lease.length == sequence.n_computed
        ids = [sequence.seq_id for sequence in holders]
        assert len(set(ids)) == len(ids)
        assert set(self.memory.of) <= {*ids, *range(self.ids, self.ids + 2)}
        assert set(self.scheduler.running).isdisjoint(self.scheduler.parked)
        assert {*self.scheduler.running, *self.scheduler.parked} == set(holders)
        for grown in self.trees:
            unborn = Counter(s.parent for s in grown.group.sequences if not s.admitted)
            for sequence in grown.group.sequences:
                assert sequence.n_unborn == unborn[sequence]
                assert sequence.phase is not Phase.RETIRED or sequence.n_unborn

    def teardown(self) -> None:
        """Everything under way comes to its end, and then nothing is left."""
        if not hasattr(self, "budget"):
            return
        for _ in range(5000):
            if not self.scheduler.busy:
                break
            self._step()
            self.the_books_are_right()
        assert not self.scheduler.busy, "somebody waits for ever"
        assert not any(grown.asked for grown in self.trees), "somebody was forgotten"
        for group in self.requests:
            for choice in group.sequences:
                request = group.request
                assert choice.phase is Phase.DONE
                assert tuple(choice.token_ids) == _alone(
                    request.prompt_token_ids, choice.path, request.max_tokens
                )
        for grown in self.trees:
            self._close(grown)
        self.trees.clear()
        self.cache.forget({bytes(32)})
        assert self.budget.used == self.memory.used == 0


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def _lane(*, max_sequences: int = 8) -> Interleavings:
    machine = Interleavings()
    machine.start(cells=200, max_sequences=max_sequences, n_batch=64, prefill=64, kept=0)
    return machine


def _tree(machine: Interleavings, length: int) -> Grown:
    machine.open_tree(prompt=[1] * length, who="b", low=False)
    return machine.trees[-1]


def _run(machine: Interleavings) -> None:
    while machine.scheduler.busy:
        machine._step()
        machine.the_books_are_right()


def test_a_prompt_is_computed_once_for_all_branches() -> None:
    """Forks of a root of which nothing is computed yet wait for whoever computes it."""
    machine = _lane()
    _tree(machine, 20)
    machine.fork(0, 0, 5)
    machine.extend(0, 0, 1, everybody=True)
    _run(machine)
    assert len(machine.memory.tokens) == 19 + 6


@pytest.mark.parametrize("max_sequences", [2, 4, 8])
def test_a_pruned_parent_leaves_its_cells_to_forks_that_never_ran(max_sequences: int) -> None:
    """Pruning right after forking, before any fork was admitted, computes nothing twice; the last fork inherits."""
    machine = _lane(max_sequences=max_sequences)
    grown = _tree(machine, 20)
    machine.extend(0, 0, 10, everybody=True)
    _run(machine)
    machine.fork(0, 0, 2)
    machine.prune(0, 0)
    assert [branch.phase for branch in grown.group.sequences] == [Phase.RETIRED, Phase.PAUSED, Phase.PAUSED]
    before = len(machine.memory.tokens)
    machine.extend(0, 0, 1, everybody=True)
    _run(machine)
    assert len(machine.memory.tokens) == before + 2
    assert machine.budget.used == 29 + 2


class Family:
    """A root of 30 tokens, 29 of them computed; branches by number."""

    def __init__(self) -> None:
        self.machine = _lane()
        self.grown = _tree(self.machine, 20)
        self.extend(0, 10)

    def fork(self, number: int) -> int:
        self.machine.fork(0, self.grown.idle().index(number), 1)
        return self.grown.next - 1

    def extend(self, number: int, count: int = 1) -> int:
        """Extend a branch; how many tokens were computed for that."""
        before = len(self.machine.memory.tokens)
        self.machine.extend(0, self.grown.idle().index(number), count, everybody=False)
        _run(self.machine)
        return len(self.machine.memory.tokens) - before

    def prune(self, number: int) -> None:
        self.machine.prune(0, list(self.grown.tokens).index(number))

    def evict(self, number: int) -> None:
        """Somebody needs its cells."""
        (branch,) = (branch for branch in self.grown.group.sequences if branch.number == number)
        self.machine.scheduler._evict(branch)


def test_a_fork_inherits_no_more_than_it_shares() -> None:
    """The parent went on after the fork and was pruned then."""
    family = Family()
    child = family.fork(0)
    family.extend(0, 10)
    family.prune(0)
    assert family.extend(child) == 1


def test_the_first_of_several_forks_does_not_take_what_the_others_need() -> None:
    """It is pruned, and the others still compute one token each."""
    family = Family()
    forks = [family.fork(0) for _ in range(3)]
    family.prune(0)
    for fork in forks:
        assert family.extend(fork) == 1
        family.prune(fork)
    assert family.machine.budget.used == 0


@pytest.mark.parametrize("generations", [1, 2])
def test_only_whom_cells_were_kept_for_inherits_them(generations: int) -> None:
    """Neither a fork that had its share already nor a distant relative takes them away from a fork that never ran."""
    family = Family()
    relative = family.fork(0)
    family.extend(relative)
    if generations == 2:
        grandchild = family.fork(relative)
        family.evict(relative)
        relative = grandchild
    else:
        family.evict(relative)
    heir = family.fork(0)
    family.prune(0)
    assert family.extend(relative) <= 2
    family.prune(relative)
    assert family.extend(heir) == 1


def test_a_fork_takes_nothing_from_a_parent_that_lives() -> None:
    """Both go on at the price of one token each."""
    family = Family()
    child = family.fork(0)
    assert family.extend(child) == 1
    assert family.extend(0) == 1


def test_forks_that_are_pruned_before_they_run_free_their_parent() -> None:
    """A pruned branch holds cells only while a fork that never ran is alive."""
    machine = _lane()
    _tree(machine, 20)
    machine.extend(0, 0, 10, everybody=True)
    _run(machine)
    machine.fork(0, 0, 2)
    machine.prune(0, 0)
    machine.prune(0, 0)
    assert machine.budget.used == 29
    machine.prune(0, 0)
    assert machine.budget.used == 0


def test_a_paused_tree_gives_way_to_its_own_forks_at_once() -> None:
    """More branches than sequence ids: those that are done for now make room, and all get their turn."""
    machine = _lane(max_sequences=3)
    grown = _tree(machine, 10)
    machine.fork(0, 0, 9)
    machine.extend(0, 0, 5, everybody=True)
    _run(machine)
    assert not grown.asked


def test_a_paused_tree_keeps_its_cells_against_strangers_for_a_while() -> None:
    """While something runs, a newcomer of another group waits its patience out; then it gets the cells."""
    machine = _lane()
    tree = _tree(machine, 150)
    machine.extend(0, 0, 1, everybody=True)
    _run(machine)
    machine.submit(prompt=[2] * 5, answer=8, n=1, who="b", low=False)
    machine._step()
    machine.submit(prompt=[3] * 12, answer=8, n=3, who="b", low=False)
    kept = next(iter(tree.group.sequences))
    _run(machine)
    assert kept.lease is not None
    for _ in range(PATIENCE_STEPS):
        machine.scheduler.plan()
    machine.submit(prompt=[2] * 5, answer=8, n=1, who="b", low=False)
    machine._step()
    machine.open_tree(prompt=[4] * 40, who="b", low=False)
    machine.extend(1, 0, 1, everybody=True)
    machine._step()
    assert kept.lease is None
    _run(machine)


def test_running_sequences_take_paused_cells_before_each_others() -> None:
    """A sequence that grows beyond what is free preempts a paused branch and no running one."""
    machine = _lane()
    tree = _tree(machine, 100)
    machine.extend(0, 0, 1, everybody=True)
    _run(machine)
    machine.open_tree(prompt=[4] * 50, who="b", low=False)
    machine.open_tree(prompt=[5] * 10, who="b", low=False)
    for number in (1, 2):
        machine.extend(number, 0, 60, everybody=True)
    machine._step()
    running = machine.scheduler.running
    assert len(running) == 2
    while next(iter(tree.group.sequences)).lease is not None:
        assert machine.scheduler.running == running
        machine._step()
    _run(machine)


def test_orders_out_of_phase_are_mistakes_of_ours() -> None:
    """Only paused sequences are resumed and rewound, only running ones paused."""
    machine = _lane()
    tree = _tree(machine, 5)
    (root,) = tree.group.sequences
    with pytest.raises(ValueError, match="running"):
        machine.scheduler.pause(root)
    machine.extend(0, 0, 1, everybody=True)
    for order in (machine.scheduler.resume, partial(machine.scheduler.rewind, length=1)):
        with pytest.raises(ValueError, match="paused"):
            order(root)
    _run(machine)
    root.n_computed = len(root.token_ids)
    with pytest.raises(ValueError, match="compute"):
        machine.scheduler.resume(root)


def test_branches_go_on_in_the_order_in_which_they_were_resumed() -> None:
    """Before requests of the same tenant that never ran, and one after the other."""
    machine = _lane(max_sequences=1)
    grown = _tree(machine, 5)
    machine.extend(0, 0, 1, everybody=True)
    _run(machine)
    machine.fork(0, 0, 3)
    machine.submit(prompt=[9], answer=3, n=1, who="b", low=False)
    machine.extend(0, 0, 2, everybody=True)
    order: list[Sequence] = []
    while machine.scheduler.busy:
        machine._step()
        order += [s for s in machine.scheduler.running if s not in order]
    assert order[:4] == [*grown.group.sequences][:4]
    assert order[4] is machine.requests[0].sequences[0]


def test_positions_that_were_computed_already_are_computed_again() -> None:
    """From the first of them, and the branch goes on generating the same."""
    family = Family()
    before = len(family.machine.memory.tokens)
    family.machine.append_and_evaluate(0, 0, [4, 5], [10, 31, 2])
    _run(family.machine)
    assert len(family.machine.memory.tokens) - before == 30
    assert family.extend(0, 3) == 3
