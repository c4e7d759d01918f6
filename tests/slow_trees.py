# SPDX-License-Identifier: Apache-2.0
"""Tree searches as a page of a paper would write them: nothing is forked, kept or shared.

A line is the list of the paths on which its steps were drawn. Whenever anything of it is wanted, its text is written
anew from the first token, and judged anew from the first step.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scripted_search import Language, Path

Share = Callable[[list[float], int], list[int]]
STEP_TOKENS = 256
UNBOUNDED = 10**9


@dataclass(frozen=True)
class Slow:
    """A line: where each of its steps was drawn, and how many tokens each of them has at most.

    ``whole`` lines end with a step that is all the rest.
    """

    paths: tuple[Path, ...]
    limits: tuple[int, ...] = ()
    whole: bool = False


@dataclass
class Written:
    """A line's text and what there is to know about it."""

    text: str = ""
    counts: list[int] = field(default_factory=list)  # tokens of each step
    pieces: list[int] = field(default_factory=list)  # tokens of each line of text in the last step
    closed: bool = True  # the last step is complete
    ended: bool = False
    complete: bool = False
    steps: list[str] = field(default_factory=list)  # scored ones


def write(language: Language, line: Slow, max_tokens: int) -> Written:
    """Write a line from its first token to where its limits let it come."""
    done = Written()
    for nth, (path, limit) in enumerate(zip(line.paths, line.limits, strict=False)):
        rest = line.whole and nth == len(line.paths) - 1
        step, count = "", 0
        done.closed = False
        done.pieces = [0]
        while count < limit and not done.ended and not done.closed:
            token = language.draw(path, done.text + step)
            count += 1
            done.pieces[-1] += 1
            step += token or ""
            done.complete = token is None
            done.ended = token is None or sum(done.counts) + count == max_tokens
            # A blank line is no step: the step goes on behind it.
            done.closed = done.ended or (
                not rest and (bool(step.strip() and step[-1] == "\n") or count == STEP_TOKENS)
            )
            if token == "\n":
                done.pieces.append(0)
        done.text += step
        done.counts.append(count)
        if done.closed:
            done.steps += [each for each in step.split("\n") if each.strip()]
    return done


def judge(language: Language, steps: Sequence[str], how: str) -> float:
    """What a line with these steps is worth; 0 without any."""
    scores = [language.score(steps[: at + 1]) for at in range(len(steps))]
    if not scores:
        return 0.0
    return _aggregate(scores, how)


@dataclass
class Result:
    """What a search comes to."""

    texts: list[str]
    complete: list[bool]
    n_tokens: list[int]
    scores: list[list[float]]
    generated: int


def rebase(balance: float) -> Share:
    """W_j = Round(B softmax(R / T)_j), with what rounding down leaves over given to the largest remainders."""

    def share(rewards: list[float], width: int) -> list[int]:
        top = max(rewards)
        weights = [math.exp((reward - top) / balance) for reward in rewards]
        exact = [width * weight / math.fsum(weights) for weight in weights]
        counts = [int(each) for each in exact]
        while sum(counts) < width:
            short = max(range(len(counts)), key=lambda at: (round(exact[at] - counts[at], 9), -at))
            counts[short] += 1
            exact[short] = counts[short] - 1.0
        return counts

    return share


def beam(branching: int) -> Share:
    """The best ceil(width / branching) lines go on, in as equal numbers of ways as can be."""

    def share(rewards: list[float], width: int) -> list[int]:
        counts = [0] * len(rewards)
        kept = sorted(range(len(rewards)), key=lambda at: (-rewards[at], at))[: -(-width // branching)]
        for turn in range(width):
            counts[kept[turn % len(kept)]] += 1
        return counts

    return share


def only_the_best(rewards: list[float], width: int) -> list[int]:
    """DVTS, within one tree."""
    best = rewards.index(max(rewards))
    return [width if at == best else 0 for at in range(len(rewards))]


def grow(
    language: Language,
    widths: Sequence[int],
    share: Share,
    *,
    how: str,
    max_tokens: int,
    budget: int | None = None,
) -> Result:
    """Search level by level.

    Args:
        language: What is drawn, and what it is worth.
        widths: Of the trees.
        share: How a tree's width is given to its lines.
        how: Aggregate.
        max_tokens: Of a line.
        budget: Tokens of all lines together.
    """
    forks: Counter[Path] = Counter()

    def child(path: Path) -> Path:
        forks[path] += 1
        return (*path, forks[path] - 1)

    def ended(line: Slow) -> bool:
        return write(language, line, max_tokens).ended

    trees = [[Slow((child((0,)),)) for _ in range(width)] for width in widths]
    finished: list[Slow] = []
    left = UNBOUNDED if budget is None else budget
    generated = 0
    while any(trees):
        given = _rations([_wanted(language, line, max_tokens) for tree in trees for line in tree], left)
        generated, left = generated + sum(given), left - sum(given)
        rations = iter(given)
        trees = [[Slow(line.paths, (*line.limits, next(rations))) for line in tree] for tree in trees]
        finished += [line for tree in trees for line in tree if ended(line)]
        trees = [[line for line in tree if not ended(line)] for tree in trees]
        if not left:
            break
        for at, tree in enumerate(trees):
            worth = [judge(language, write(language, line, max_tokens).steps, how) for line in tree]
            counts = share(worth, len(tree)) if tree else []
            trees[at] = [
                Slow((*line.paths, child(line.paths[-1]) if nth else line.paths[-1]), line.limits)
                for line, count in zip(tree, counts, strict=True)
                for nth in range(count)
            ]
    lines = [*finished, *(line for tree in trees for line in tree)]
    return _result(language, [write(language, line, max_tokens) for line in lines], generated)


def _wanted(language: Language, line: Slow, max_tokens: int) -> list[int]:
    """Tokens of the next step: of each line of text in it, for a step may begin with blank ones."""
    longer = write(language, Slow(line.paths, (*line.limits, STEP_TOKENS)), max_tokens)
    return [count for count in longer.pieces if count]


def _rations(wanted: Sequence[list[int]], left: int) -> list[int]:
    """What each may have: in every round an equal share of what is left, of which it takes up to a line's end."""
    given = [0] * len(wanted)
    rest = [list(counts) for counts in wanted]
    while left and any(rest):
        hungry = [at for at in range(len(wanted)) if rest[at]]
        before = left
        for place, at in enumerate(hungry):
            fair = before // len(hungry) + (place < before % len(hungry))
            more = min(fair, rest[at][0])
            rest[at][0] -= more
            if not rest[at][0]:
                rest[at].pop(0)
            given[at] += more
            left -= more
    return given


def climb(
    language: Language, n: int, branching: int, *, how: str, max_tokens: int, budget: int | None = None
) -> Result:
    """MCTS: all that is known of a node is worked out anew from the answers so far.

    Args:
        language: What is drawn, and what it is worth.
        n: Answers.
        branching: Children of a node.
        how: Aggregate.
        max_tokens: Of a line.
        budget: Tokens of all lines together.
    """
    forks: Counter[Path] = Counter()
    lines: dict[tuple[int, ...], Slow] = {(): Slow(((0,),), (0,))}
    answers: list[tuple[tuple[int, ...], Slow]] = []
    left = UNBOUNDED if budget is None else budget

    def child(path: Path) -> Path:
        forks[path] += 1
        return (*path, forks[path] - 1)

    def children(node: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [other for other in lines if other and other[:-1] == node]

    def closed(node: tuple[int, ...]) -> bool:
        if write(language, lines[node], max_tokens).ended:
            return True
        below = children(node)
        return len(below) >= branching and all(map(closed, below))

    def values(node: tuple[int, ...]) -> list[float]:
        return [
            judge(language, write(language, answer, max_tokens).steps, how)
            for end, answer in answers
            if end[: len(node)] == node
        ]

    def uct(node: tuple[int, ...]) -> float:
        known = values(node)
        bonus = math.sqrt(2.0) * math.sqrt(math.log(len(values(node[:-1]))))
        return sum(known) / len(known) + bonus / math.sqrt(len(known))

    def longer(line: Slow, limit: int, *, whole: bool) -> Slow:
        nonlocal left
        grown = Slow((*line.paths, child(line.paths[-1])), (*line.limits, min(limit, left)), whole)
        left -= write(language, grown, max_tokens).counts[-1]
        return grown

    while len(answers) < n and not closed(()) and (left or not answers):
        node: tuple[int, ...] = ()
        while len(children(node)) >= branching:
            node = max((each for each in children(node) if not closed(each)), key=uct)
        new = (*node, len(children(node)))
        lines[new] = answer = longer(lines[node], STEP_TOKENS, whole=False)
        if left and not write(language, answer, max_tokens).ended:
            answer = longer(answer, max_tokens, whole=True)
        answers.append((new, answer))
    written = [write(language, answer, max_tokens) for _, answer in answers]
    return _result(language, written, (UNBOUNDED if budget is None else budget) - left)


def _result(language: Language, written: Sequence[Written], generated: int) -> Result:
    return Result(
        texts=[each.text for each in written],
        complete=[each.complete for each in written],
        n_tokens=[sum(each.counts) for each in written],
        scores=[[language.score(each.steps[: at + 1]) for at in range(len(each.steps))] for each in written],
        generated=generated,
    )


def vote(result: Result, how: str) -> tuple[str | None, dict[str, float]]:
    """The answer with the greatest sum of rewards, and all sums; None if nothing can be read."""
    sums: dict[str, float] = {}
    for text, complete, scores in zip(result.texts, result.complete, result.scores, strict=True):
        found = re.fullmatch(r"(?:.*\n)?The answer is: ([0-9])", text, re.DOTALL)
        if complete and found:
            sums[found[1]] = sums.get(found[1], 0.0) + (_aggregate(scores, how) if scores else 0.0)
    return (max(sums, key=sums.__getitem__) if sums else None), sums


def _aggregate(scores: Sequence[float], how: str) -> float:
    return {
        "last": scores[-1],
        "min": min(scores),
        "prod": math.prod(scores),
        "mean": math.fsum(scores) / len(scores),
    }[how]
