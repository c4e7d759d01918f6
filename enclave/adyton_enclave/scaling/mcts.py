# SPDX-License-Identifier: Apache-2.0
"""Monte-Carlo tree search, for comparison only: it takes turns where REBASE works side by side, and tries less.

UCT (Kocsis and Szepesvari 2006). Each of ``n`` iterations goes down from the root to a node with fewer than
``branching`` children, by the greatest mean reward plus exploration bonus; adds a child, one step; completes it in one
go; and credits the scorer's reward of the whole answer to every node on the way. A node below which everything has
ended is not entered again. The completed answers vote.
"""

import math
from typing import Final

from adyton_enclave.scaling.growth import Tip, check_scorer, outcome, reward
from adyton_enclave.scaling.search import Outcome, Search
from adyton_enclave.scaling.tree_record import TreeRecord
from adyton_protocol.errors import InvalidRequest

EXPLORATION: Final = math.sqrt(2.0)
"""Of UCB1, for rewards from 0 to 1."""


class _Node:
    """A step and what was learnt below it."""

    def __init__(self, tip: Tip) -> None:
        self.tip = tip
        self.children: list[_Node] = []
        self.n_visits = 0
        self.total = 0.0
        self.closed = False

    def best_child(self) -> "_Node":
        """Where to go on: of those that are not closed, by UCT, ties to the earliest."""
        bonus = EXPLORATION * math.sqrt(math.log(self.n_visits))
        return max(
            (child for child in self.children if not child.closed),
            key=lambda child: child.total / child.n_visits + bonus / math.sqrt(child.n_visits),
        )

    def credit(self, value: float, branching: int) -> None:
        """Take in the reward of an answer below."""
        self.n_visits += 1
        self.total += value
        full = len(self.children) >= branching
        self.closed = self.tip.line.ended or (full and all(child.closed for child in self.children))
        if full or self.closed:
            # Only its children go on from here.
            self.tip.line.drop()


async def run(search: Search) -> Outcome:
    """Search by UCT.

    Raises:
        InvalidRequest: The plan does not say that it wants what is experimental.
    """
    check_scorer(search)
    if not search.plan.experimental:
        raise InvalidRequest(
            "mcts is experimental and has to be asked for as such", param="scaling.experimental"
        )
    record = TreeRecord()
    root = _Node(Tip(search.root))
    answers: list[Tip] = []
    wanted = True
    while wanted:
        answers.append(await _iterate(search, root, record))
        wanted = len(answers) < search.plan.n and not root.closed
        if search.ledger.exhausted:
            break
    unfinished = [search.root] if wanted else [answers[-1].line]
    return outcome(search, record, answers, unfinished)


async def _iterate(search: Search, root: _Node, record: TreeRecord) -> Tip:
    """Try one more step somewhere; the answer that it led to."""
    branching = search.plan.branching
    way = [root]
    while len(way[-1].children) >= branching:
        way.append(way[-1].best_child())
    child = _Node(way[-1].tip.fork(1)[0])
    way[-1].children.append(child)
    way.append(child)
    answer = child.tip
    await search.advance([answer.line])
    answer.record(search, record)
    if not answer.line.ended and not search.ledger.exhausted:
        (answer,) = answer.fork(1)
        await search.finish([answer.line])
        answer.record(search, record)
    value = reward(search, answer.line) or 0.0
    for node in reversed(way):
        node.credit(value, branching)
    answer.line.drop()
    return answer
