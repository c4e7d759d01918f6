# SPDX-License-Identifier: Apache-2.0
"""A generator and a scorer without models, behind the interfaces of real ones: a language that is a pure function.

What is drawn depends on the path and on the text before, as in the engine; what a step is worth depends on the steps
up to it, as in a scorer. So a slow reference can work out what a search has to find.
"""

import asyncio
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adyton_enclave.engine import Extension, GenerationRequest, TokenLogprob, Usage
from adyton_enclave.scaling.ledger import Prices
from adyton_enclave.scaling.plan import Plan
from adyton_enclave.scaling.search import LINES, Progress, Search
from adyton_protocol.errors import Cancelled, ContextOverflow, LocalProtocolError

ANSWER = "The answer is: "
PROMPT_TOKENS = 7
PROBLEM_TOKENS = 5
Path = tuple[int, ...]


def number(*what: object) -> int:
    """A number that looks random and depends on its arguments alone."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=6).digest(), "big")


def _word(which: int) -> str:
    return chr(ord("a") + which) + " "


@dataclass(frozen=True)
class Language:
    """Short lines of words, and at last an answer from 0 to 3, or one that nobody can read.

    Attributes:
        seed: Another one is another language.
        words: Most words of a line.
        patience: About so many lines come before the answer.
        readable: In so many of eight cases the answer can be read.
        scores: So many different scores are given; few make ties.
        variety: So many different words: few make equal lines.
        blank: In so many of eight cases a line is blank, or the text ends before its answer.
        endless: No line ever ends.
        cold: What is drawn does not depend on the path.
    """

    seed: int = 0
    words: int = 3
    patience: int = 3
    readable: int = 7
    scores: int = 4
    variety: int = 2
    blank: int = 0
    endless: bool = False
    cold: bool = False

    def draw(self, path: Path, text: str) -> str | None:
        """The next token; None ends the text."""
        dice = number(self.seed, () if self.cold else path, text)
        lines = text.split("\n")
        line = lines[-1]
        if self.endless:
            return _word(dice % self.variety)
        if line.startswith(ANSWER):
            if line != ANSWER:
                return None
            return str(dice % 4) if dice // 4 % 8 < self.readable else "?"
        if not line:
            if dice % 8 < self.blank:
                return ("\n", None)[dice // 8 % 2]
            return (
                ANSWER if dice // 16 % self.patience < len(lines) - 1 else _word(dice // 512 % self.variety)
            )
        return "\n" if dice % self.words < len(line.split()) else _word(dice // 512 % self.variety)

    def score(self, steps: Sequence[str]) -> float:
        """What the last of these steps is worth."""
        return (number(self.seed, "score", tuple(step.strip() for step in steps)) % self.scores + 1) / (
            self.scores + 1
        )

    def score_of(self, text: str) -> float:
        """The product of the scores of all steps of a text."""
        steps = [step for step in text.split("\n") if step.strip()]
        return math.prod(self.score(steps[: at + 1]) for at in range(len(steps)))


@dataclass
class Costs:
    """What the fakes were asked to do.

    Attributes:
        generated: Tokens.
        read: Tokens (characters) of steps that the scorer read.
        alive: Branches that were made and not pruned, by name of their tree.
        busy: Extensions under way, and the most of them there ever were.
    """

    generated: int = 0
    read: int = 0
    alive: dict[str, int] = field(default_factory=lambda: {"generator": 0, "scorer": 0})
    busy: int = 0
    most_busy: int = 0


class ScriptedBranch:
    """A branch of the generator."""

    def __init__(self, tree: "ScriptedTree", path: Path, parent: "ScriptedBranch | None") -> None:
        self._tree = tree
        self.path = path
        self.text = "" if parent is None else parent.text
        self.logprob = 0.0 if parent is None else parent.logprob
        self.n_tokens = 0 if parent is None else parent.n_tokens
        self._over = parent is not None and parent._over
        self._n_forks = 0
        self._pruned = False
        self._busy = False
        tree.costs.alive["generator"] += 1

    @property
    def n_left(self) -> int:
        return self._tree.request.max_tokens - self.n_tokens

    @property
    def ended(self) -> bool:
        return self._over or not self.n_left

    def fork(self, n: int = 1) -> list["ScriptedBranch"]:
        self._check()
        first, self._n_forks = self._n_forks, self._n_forks + n
        return [ScriptedBranch(self._tree, (*self.path, k), self) for k in range(first, first + n)]

    async def extend(self, *, until: Sequence[str] = (), max_tokens: int | None = None) -> Extension:
        self._check()
        assert not self.ended
        assert max_tokens is None or max_tokens >= 1
        self._busy = True
        costs = self._tree.costs
        costs.busy += 1
        costs.most_busy = max(costs.most_busy, costs.busy)
        try:
            new = ""
            tokens: list[TokenLogprob] = []
            reason = ""
            while not reason:
                await self._tree.pace()
                if self._pruned or self._tree.closed:
                    raise Cancelled("the branch is gone")
                token = self._tree.language.draw(self.path, self.text + new)
                self.n_tokens += 1
                costs.generated += 1
                self._tree.tokens.add((self.path, self.n_tokens))
                logprob = -(number(self.path, self.n_tokens) % 8) / 8
                tokens.append(
                    TokenLogprob(token=token or "", bytes=(token or "").encode(), logprob=logprob, top=())
                )
                new += token or ""
                if token is None:
                    reason = "stop"
                elif any(end in new for end in until):
                    reason = "until"
                elif not self.n_left:
                    reason = "limit"
                elif len(tokens) == max_tokens:
                    reason = "length"
            self.text += new
            self._over = reason == "stop"
            extension = Extension(
                token_ids=tuple(range(len(tokens))),
                text=new,
                n_recalled=0,
                reason=reason,  # type: ignore[arg-type]
                logprobs=tuple(tokens),
            )
            self.logprob += extension.logprob
            return extension
        finally:
            self._busy = False
            costs.busy -= 1

    def prune(self) -> None:
        if not self._pruned:
            self._pruned = True
            self._tree.costs.alive["generator"] -= 1

    def _check(self) -> None:
        if self._tree.closed:
            raise Cancelled("the tree was closed")
        if self._pruned or self._busy:
            raise LocalProtocolError("the branch was pruned or is busy")


class ScriptedTree:
    """A tree of the generator; ``seed`` shuffles when things happen, and nothing else."""

    def __init__(self, language: Language, costs: Costs, max_tokens: int, seed: int) -> None:
        self.language = language
        self.costs = costs
        self.closed = False
        self.tokens: set[tuple[Path, int]] = set()
        self.request = GenerationRequest(
            model="scripted",
            prompt_token_ids=tuple(range(PROMPT_TOKENS)),
            max_tokens=max_tokens,
            key=bytes(32),
            logprobs=0,
        )
        self._seed = seed
        self._n_paces = 0
        self.root = ScriptedBranch(self, (0,), None)

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=self.costs.generated)

    async def pace(self) -> None:
        """Let others go first, now and then."""
        self._n_paces += 1
        for _ in range(number(self._seed, self._n_paces) % 3):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True


class ScriptedScores:
    """A branch of the scorer."""

    def __init__(self, tree: "ScriptedScorer", steps: tuple[str, ...], scores: tuple[float, ...]) -> None:
        self._tree = tree
        self._steps = steps
        self.scores = scores
        self._pruned = False
        self._busy = False
        tree.costs.alive["scorer"] += 1

    def fork(self, n: int = 1) -> list["ScriptedScores"]:
        self._check()
        return [ScriptedScores(self._tree, self._steps, self.scores) for _ in range(n)]

    def n_tokens(self, *steps: str) -> int:
        return sum(map(len, steps))

    async def extend(self, *steps: str) -> tuple[float, ...]:
        self._check()
        n_new = sum(map(len, steps))
        if sum(map(len, self._steps)) + n_new > self._tree.room:
            raise ContextOverflow("the steps do not fit")
        self._busy = True
        self._tree.costs.read += n_new
        self._tree.readings.append((self._steps, steps))
        try:
            await self._tree.pace()
            if self._pruned or self._tree.closed:
                raise Cancelled("the branch is gone")
            texts = (*self._steps, *steps)
            new = tuple(
                self._tree.language.score(texts[: at + 1]) for at in range(len(self._steps), len(texts))
            )
            self._steps, self.scores = texts, self.scores + new
            return new
        finally:
            self._busy = False

    def prune(self) -> None:
        if not self._pruned:
            self._pruned = True
            self._tree.costs.alive["scorer"] -= 1

    def _check(self) -> None:
        if self._tree.closed:
            raise Cancelled("the tree was closed")
        if self._pruned or self._busy:
            raise LocalProtocolError("the branch was pruned or is busy")


class ScriptedScorer:
    """A tree of the scorer; ``room`` is how many characters of steps it can hold on a branch."""

    def __init__(self, language: Language, costs: Costs, seed: int, room: int) -> None:
        self.language = language
        self.costs = costs
        self.room = room
        self.closed = False
        self.readings: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self._seed = seed
        self._n_paces = 0
        self.root = ScriptedScores(self, (), ())

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=PROBLEM_TOKENS + self.costs.read, completion_tokens=0)

    async def pace(self) -> None:
        self._n_paces += 1
        for _ in range(number(self._seed, "scorer", self._n_paces) % 5):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True


@dataclass
class Script:
    """A search over a language.

    Attributes:
        language: See there.
        plan: Of the search.
        max_tokens: Of a line.
        timing: Another one has things happen in another order.
        room: Of the scorer.
        scores: Whether there is a scorer.
    """

    language: Language
    plan: Plan
    max_tokens: int = 40
    timing: int = 0
    room: int = 10_000
    scores: bool = True
    costs: Costs = field(default_factory=Costs)
    progress: list[Progress] = field(default_factory=list)

    def open(self, notify: Callable[[Progress], None] | None = None) -> Search:
        """The search, ready to run."""
        self.tree = ScriptedTree(self.language, self.costs, self.max_tokens, self.timing)
        self.scorer = (
            ScriptedScorer(self.language, self.costs, self.timing, self.room) if self.scores else None
        )
        return Search(
            self.plan,
            self.tree,  # type: ignore[arg-type]
            self.scorer,  # type: ignore[arg-type]
            splitter=LINES,
            prices=Prices(generator=2.0, scorer=1.0 if self.scores else 0.0),
            notify=notify or self.progress.append,
        )
