# SPDX-License-Identifier: Apache-2.0
"""A generator that says what a script says, line by line, and a scorer that thinks what a table says.

Both stand behind the API's ports, so that a test of the API can say which candidates a search has.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from adyton_enclave.engine import Extension, GenerationRequest, TokenLogprob, Usage
from adyton_enclave.scoring import ScoringTerms
from adyton_enclave.scoring.splitter import Splitter
from adyton_protocol.errors import Cancelled, EngineError

Script = Callable[[tuple[int, ...]], str]
"""What the branch of a path says; a token is a line."""
ENDLESS = "..."
"""Said again and again, until something else ends the branch."""


def answers(*texts: str) -> Script:
    """Candidate ``k`` says text ``k``, from the first again where there are more."""
    return lambda path: texts[(path[1] if len(path) > 1 else 0) % len(texts)]


class ScriptedBranch:
    """A branch; its text is what its path says, so far."""

    def __init__(self, tree: "ScriptedTree", path: tuple[int, ...], parent: "ScriptedBranch | None") -> None:
        self._tree = tree
        self.path = path
        self.text = "" if parent is None else parent.text
        self.n_tokens = 0 if parent is None else parent.n_tokens
        self.logprob = 0.0 if parent is None else parent.logprob
        self._over = parent is not None and parent.ended
        self._n_forks = 0

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(range(len(self._tree.request.prompt_token_ids) + self.n_tokens))

    @property
    def n_left(self) -> int:
        return self._tree.request.max_tokens - self.n_tokens

    @property
    def ended(self) -> bool:
        return self._over or not self.n_left

    def fork(self, n: int = 1) -> list["ScriptedBranch"]:
        first, self._n_forks = self._n_forks, self._n_forks + n
        return [ScriptedBranch(self._tree, (*self.path, k), self) for k in range(first, first + n)]

    async def extend(self, *, until: Sequence[str] = (), max_tokens: int | None = None) -> Extension:
        limit = self.n_left if max_tokens is None else min(max_tokens, self.n_left)
        said: list[str] = []
        reason = "length"
        while len(said) < limit:
            await self._tree.breathe()
            line = self._next(self.text + "".join(said))
            said.append(line)
            if not line:
                reason = "stop"
                break
            if until and line.endswith("\n"):
                reason = "until"
                break
        self.n_tokens += len(said)
        self._tree.generated += len(said)
        if reason == "length" and not self.n_left:
            reason = "limit"
        self.text += "".join(said)
        self.logprob -= 0.5 * len(said)
        self._over = reason == "stop"
        tokens = tuple(TokenLogprob(token=one, bytes=one.encode(), logprob=-0.5, top=()) for one in said)
        return Extension(
            token_ids=tuple(range(len(said))),
            text="".join(said),
            n_recalled=0,
            reason=reason,  # type: ignore[arg-type]
            logprobs=tokens,
        )

    def prune(self) -> None:
        self._over = True

    def _next(self, text: str) -> str:
        script = self._tree.script(self.path)
        if script == ENDLESS:
            return ENDLESS
        return next(iter(script[len(text) :].splitlines(keepends=True)), "")


class ScriptedTree:
    """A tree over a script."""

    def __init__(self, request: GenerationRequest, script: Script) -> None:
        self.request = request
        self.script = script
        self.generated = 0
        self.closed = False
        self.error: EngineError | None = None
        self.step: asyncio.Semaphore | None = None
        self.root = ScriptedBranch(self, (request.first_choice,), None)

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=len(self.request.prompt_token_ids), completion_tokens=self.generated)

    async def breathe(self) -> None:
        """Let others go on; wait for the test, if it wants that."""
        if self.step is None:
            await asyncio.sleep(0)
        else:
            await self.step.acquire()
        if self.error is not None:
            raise self.error
        if self.closed:
            raise Cancelled("the tree was closed")

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ScriptedScores:
    """A branch of the scorer."""

    def __init__(self, tree: "ScriptedScoring", scores: tuple[float, ...]) -> None:
        self._tree = tree
        self.scores = scores

    def fork(self, n: int = 1) -> list["ScriptedScores"]:
        return [ScriptedScores(self._tree, self.scores) for _ in range(n)]

    def n_tokens(self, *steps: str) -> int:
        return sum(map(len, steps))

    async def extend(self, *steps: str) -> tuple[float, ...]:
        await asyncio.sleep(0)
        new = tuple(self._tree.table.get(step.strip(), 0.5) for step in steps)
        self._tree.read += self.n_tokens(*steps)
        self.scores += new
        return new

    def prune(self) -> None:
        pass


class ScriptedScoring:
    """What the scorer makes of answers to one problem."""

    def __init__(self, problem: str, table: Mapping[str, float]) -> None:
        self.table = table
        self.read = 0
        self.closed = False
        self._n_problem = len(problem)
        self.root = ScriptedScores(self, ())

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=self._n_problem + self.read, completion_tokens=0)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class ScriptedScorer:
    """Fits the API's scorer port.

    Attributes:
        table: Scores of lines; others get 0.5.
        problems: What it was told is asked.
        terms: On what terms.
    """

    model: Any
    name: str = "judge"
    threshold: float = 0.25
    table: Mapping[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    terms: list[ScoringTerms] = field(default_factory=list)
    refusal: EngineError | None = None

    @property
    def adapter(self) -> Any:
        return SimpleNamespace(splitter=Splitter(rule="newline"), scaling=())

    def open(self, problem: str, terms: ScoringTerms) -> ScriptedScoring:
        if self.refusal is not None:
            raise self.refusal
        self.problems.append(problem)
        self.terms.append(terms)
        return ScriptedScoring(problem, self.table)

    def split(self, text: str) -> list[str]:
        return Splitter(rule="newline").split(text)

    async def score(
        self, problem: str, steps: Sequence[str], terms: ScoringTerms
    ) -> tuple[tuple[float, ...], Usage]:
        self.terms.append(terms)
        scores = tuple(self.table.get(step.strip(), 0.5) for step in steps)
        return scores, Usage(prompt_tokens=len(problem), completion_tokens=0)
