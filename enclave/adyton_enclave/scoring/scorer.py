# SPDX-License-Identifier: Apache-2.0
"""A process reward model at work: a scoring sequence for each branch of an answer, on the engine.

::

    with scorer.open(problem) as tree:
        (first,) = await tree.root.extend(" Eva = 12")
        for branch in tree.root.fork(4):
            ...

Every branch is a branch of the engine's own tree (``engine.tree``): it shares the KV cells of what it has in common
with its relatives, is computed in the same steps as everybody else's, yields its cells when they are needed, and leaves
zeros. Only what is new is computed. A score depends on problem and steps, and on nothing else.
"""

import asyncio
import math
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine import (
    Engine,
    Evaluation,
    GenerationRequest,
    LoadedModel,
    Question,
    Usage,
)
from adyton_enclave.engine.request import KEY_BYTES
from adyton_enclave.engine.tree import Branch, Tree
from adyton_enclave.scoring.calibration import sigmoid
from adyton_enclave.scoring.files import Ingredients
from adyton_enclave.scoring.framing import Framer
from adyton_enclave.scoring.terms import ScoringTerms
from adyton_protocol.errors import AdapterError, ContextOverflow, GoldenMismatch, UnknownModel

_LARGE_CHARS: Final = 16 * 1024
_LARGE_HEAD: Final = 1 << 20


_NO_TERMS: Final = ScoringTerms()


class Scorer:
    """A scorer model on a running engine. Use it in one event loop."""

    def __init__(self, engine: Engine, name: str, ingredients: Ingredients) -> None:
        """Check that adapter, head and model go together; :meth:`check_golden` says whether they do so rightly.

        Raises:
            AdapterError: They do not.
            UnknownModel: The engine has no model of that name.
        """
        self.name = name
        self.adapter = ingredients.adapter
        self.head = ingredients.head
        self.engine = engine
        if (model := engine.models.get(name)) is None:
            raise UnknownModel("no model of the scorer's name is loaded", param="model")
        self.model: LoadedModel = model
        if self.head is not None and self.head.width != self.model.hidden_width:
            raise AdapterError(
                f"the head takes hidden states of {self.head.width} numbers; the model's have "
                f"{self.model.hidden_width}"
            )
        self.framer = Framer(self.adapter, self.model)
        labels = self.adapter.labels
        self._label_ids = () if labels is None else (labels.good.id, labels.bad.id)

    @property
    def threshold(self) -> float:
        """Score from which a step counts as sound."""
        return self.adapter.calibration.threshold

    def split(self, text: str) -> list[str]:
        """The steps of an answer (attacker-controlled), none of them blank; possibly none at all."""
        return self.adapter.splitter.split(text)

    def with_ingredients(self, ingredients: Ingredients) -> "Scorer":
        """A scorer of another adapter or head on the same model.

        Raises:
            AdapterError: They do not go together.
        """
        return Scorer(self.engine, self.name, ingredients)

    def open(self, problem: str, terms: ScoringTerms = _NO_TERMS) -> "ScoringTree":
        """Begin to score answers to a problem (attacker-controlled). Use the result as a context manager.

        Raises:
            InvalidRequest: The problem is blank.
            ContextOverflow: It leaves no room for a step.
            QueueFull: Too many requests wait.
            EngineStopped: The engine is not running.
        """
        self.model.refuse_hopeless(len(problem), "problem")
        token_ids = self.framer.prefix(problem)
        room = self.model.n_ctx - len(token_ids)
        if room < 1:
            raise ContextOverflow(
                f"the problem has {len(token_ids)} tokens, but the scorer's context holds {self.model.n_ctx}",
                param="problem",
            )
        request = GenerationRequest(
            model=self.name,
            prompt_token_ids=token_ids,
            max_tokens=room,
            key=bytes(KEY_BYTES),  # Nothing is drawn.
            tenant=terms.tenant,
            timeout_s=terms.timeout_s,
            priority=terms.priority,
            cache_namespace=terms.cache_namespace,
        )
        return ScoringTree(self, self.engine.open_tree(request))

    async def score(
        self, problem: str, steps: Sequence[str], terms: ScoringTerms = _NO_TERMS
    ) -> tuple[tuple[float, ...], Usage]:
        """Score a whole answer.

        Args:
            problem: Attacker-controlled.
            steps: Attacker-controlled, at least one.
            terms: When, and how long it may take.

        Returns:
            A score for each step, and the tokens that were read.

        Raises:
            InvalidRequest: Something is blank.
            ContextOverflow: Problem and steps do not fit.
            EngineError: What else went wrong.
        """
        characters = len(problem) + sum(map(len, steps))
        self.model.refuse_hopeless(characters, "steps")
        if characters > _LARGE_CHARS:
            # Tokenising takes long enough to be felt by others; nothing of it needs the event loop.
            await asyncio.to_thread(self._rehearse, problem, steps)
        with self.open(problem, terms) as tree:
            scores = await tree.root.extend(*steps)
            return scores, tree.usage

    async def check_golden(self) -> None:
        """Compare with the adapter's golden vectors, whole and step by step.

        Raises:
            GoldenMismatch: A score differs by more than its tolerance, or there are no golden vectors.
            AdapterError: A golden vector does not fit into the context.
            EngineError: The engine failed.
        """
        if not self.adapter.golden:
            raise GoldenMismatch(
                f"the adapter of scorer {self.name!r} has no golden vectors, so that nothing would tell a wrong read "
                "position; `adyton-models golden` makes them"
            )
        for number, golden in enumerate(self.adapter.golden, 1):
            try:
                whole, _ = await self.score(golden.problem, golden.steps)
                with self.open(golden.problem) as tree:
                    single = [(await tree.root.extend(step))[0] for step in golden.steps]
            except ContextOverflow as error:
                raise AdapterError(f"golden vector {number} does not fit into the context") from error
            for step, expected in enumerate(golden.scores, 1):
                for found in (whole[step - 1], single[step - 1]):
                    # SECURITY: a wrong read position, swapped labels or another head give plausible numbers.
                    if not abs(found - expected) <= golden.tolerance:
                        raise GoldenMismatch(
                            f"scorer {self.name!r}, golden vector {number}, step {step}: {found:.6f} where the "
                            f"adapter expects {expected:.6f} within {golden.tolerance:g}"
                        )

    def read(self, evaluation: Evaluation, counts: Sequence[int], before: float = 1.0) -> list[float]:
        """Calibrated scores of steps.

        Args:
            evaluation: Of the positions of all these steps, one after the other.
            counts: How many of them belong to each step.
            before: Score of the step before the first, 1 if there is none.
        """
        if self.adapter.kind == "likelihood":
            return self._likelihoods(evaluation.next_logprobs, counts, before)
        if self.head is None:
            return [self._verdict(row) for row in evaluation.label_logits]
        head = self.head
        return [self.adapter.calibration.apply(head.score(row)) for row in evaluation.hidden]

    def question(self, positions: Sequence[int]) -> Question:
        """What to ask the model at the read positions."""
        return Question(positions=tuple(positions), label_ids=self._label_ids, hidden=self.head is not None)

    def _likelihoods(
        self, logprobs: npt.NDArray[np.float64], counts: Sequence[int], before: float
    ) -> list[float]:
        """A step is as sound as it is likely, and no step is sounder than those it stands on."""
        scores = []
        at = 0
        for count in counts:
            raw = math.exp(min(0.0, math.fsum(logprobs[at : at + count])))
            before = min(before, self.adapter.calibration.apply(raw))
            scores.append(before)
            at += count
        return scores

    def _verdict(self, row: npt.NDArray[np.float32]) -> float:
        """Softmax over the two labels; the good one comes first."""
        return self.adapter.calibration.apply(sigmoid(float(row[0]) - float(row[1])))

    def _rehearse(self, problem: str, steps: Sequence[str]) -> None:
        """Refuse what cannot fit before the event loop tokenises it."""
        n_tokens = len(self.framer.prefix(problem))
        for index, step in enumerate(steps):
            n_tokens += len(self.framer.step(step, first=not index).token_ids)
            if n_tokens > self.model.n_ctx:
                raise ContextOverflow(
                    f"problem and steps have more tokens than the scorer's context holds, {self.model.n_ctx}",
                    param="steps",
                )


class ScoringBranch:
    """One line of steps with their scores. Made by :meth:`fork`."""

    def __init__(self, scorer: Scorer, branch: Branch, scores: tuple[float, ...]) -> None:
        """Only :class:`ScoringTree` and :meth:`fork` make these."""
        self._scorer = scorer
        self._branch = branch
        self._scores = scores

    @property
    def scores(self) -> tuple[float, ...]:
        """Scores of all steps so far, those of its ancestors included."""
        return self._scores

    def fork(self, n: int = 1) -> list["ScoringBranch"]:
        """Make ``n`` branches that begin with all steps of this one. Costs nothing until they are extended.

        Raises:
            LocalProtocolError: The branch is being extended or was pruned.
        """
        return [ScoringBranch(self._scorer, branch, self._scores) for branch in self._branch.fork(n)]

    def n_tokens(self, *steps: str) -> int:
        """Tokens that the scorer would read, were these steps (attacker-controlled) added.

        Raises:
            InvalidRequest: A step is blank.
        """
        step = self._scorer.framer.step
        return sum(
            len(step(text, first=not self._scores and not index).token_ids)
            for index, text in enumerate(steps)
        )

    async def extend(self, *steps: str) -> tuple[float, ...]:
        """Add steps (attacker-controlled) and score them. If the waiting task is cancelled, the branch is pruned.

        Returns:
            The scores of the new steps.

        Raises:
            LocalProtocolError: The branch is being extended or was pruned.
            InvalidRequest: There is no step, or a blank one; the branch is as before.
            ContextOverflow: They do not fit; the branch is as before.
            Cancelled: The tree was closed or the branch pruned meanwhile, or the tree's time is up.
            EngineError: What else ended the tree.
        """
        if not steps:
            return ()
        self._scorer.model.refuse_hopeless(sum(map(len, steps)), "steps")
        token_ids: list[int] = []
        positions: list[int] = []
        counts: list[int] = []
        begin = len(self._branch.token_ids)
        for index, step in enumerate(steps):
            segment = self._scorer.framer.step(step, first=not self._scores and not index)
            positions += [begin + len(token_ids) + at for at in segment.reads]
            counts.append(len(segment.reads))
            token_ids += segment.token_ids
        if len(token_ids) > self._branch.n_left:
            raise ContextOverflow(
                f"the steps have {len(token_ids)} tokens where the scorer's context has room for "
                f"{self._branch.n_left}",
                param="steps",
            )
        self._branch.append(token_ids)
        evaluation = await self._branch.evaluate(self._scorer.question(positions))
        head, before = self._scorer.head, self._scores[-1] if self._scores else 1.0
        if head is not None and head.n_weights > _LARGE_HEAD:
            scores = await asyncio.to_thread(self._scorer.read, evaluation, counts, before)
        else:
            scores = self._scorer.read(evaluation, counts, before)
        self._scores += tuple(scores)
        return tuple(scores)

    def prune(self) -> None:
        """Drop the branch, whatever it is doing; its forks live on. Idempotent."""
        self._branch.prune()


class ScoringTree:
    """Scoring of answers to one problem. Leaving the context closes it and frees everything it holds.

    Attributes:
        root: The branch without any step.
    """

    def __init__(self, scorer: Scorer, tree: Tree) -> None:
        """Only :meth:`Scorer.open` makes these."""
        self._tree = tree
        self.root = ScoringBranch(scorer, tree.root, ())

    @property
    def usage(self) -> Usage:
        """Tokens so far: those of the problem and of every step that was added, each once."""
        return self._tree.usage

    def close(self) -> None:
        """Free everything within one step; what is under way fails with Cancelled. Idempotent."""
        self._tree.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
