# SPDX-License-Identifier: Apache-2.0
"""A generator that writes short lines of digits beside a scorer that judges them, both with random weights, in one
engine; and a slow search that asks both one by one, to compare with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine_calls import until
from tiny_gguf import TinyModel, make_tiny_gguf
from tiny_scorers import TinyScorer, make_scorer

from adyton_enclave.engine import Engine, EngineConfig, GenerationRequest, ModelSpec, sampling_key
from adyton_enclave.scaling.plan import Budget, Plan, StopRule
from adyton_enclave.scaling.strategies import Finding, run
from adyton_enclave.scoring import Scorer
from adyton_protocol.selection.candidate import Candidate, Method, SelectionRule

GENERATOR = "tiny"
PROBLEM = "how many ants are in the tin"
FIRST_BYTE_ID = 5
"""Token of byte 0 in the generator's vocabulary; the others follow."""
END_ID = 1
LANGUAGE = {"1": 14.0, "2": 14.0, "3": 14.0, " ": 13.0, "\n": 15.0, "a": 12.0}
"""Characters that are written, and what is added to their logits."""


@dataclass(frozen=True)
class Pair:
    """A running engine with a generator and a scorer."""

    engine: Engine
    scorer: Scorer

    @property
    def cells(self) -> int:
        """KV cells that anything holds."""
        return sum(status.kv_cells_used for status in self.engine.status().values())

    async def at_rest(self) -> None:
        """Wait until nothing is held any more."""
        await until(lambda: not self.cells)

    async def search(self, plan: Plan, request: GenerationRequest, **more: object) -> Finding:
        """Run a plan."""
        return await run(plan, self.engine, self.scorer, request, PROBLEM, **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Files:
    """Of both models."""

    generator: TinyModel
    scorer: TinyScorer

    def start(self, *, n_ctx: int = 512, scorer_n_ctx: int = 512, **settings: object) -> Pair:
        """Load them; the caller stops the engine."""
        config = EngineConfig(**{"threads": 1, "n_ctx_total": 4096, "max_sequences": 16, **settings})  # type: ignore[arg-type]
        path, pin = str(self.generator.path), self.generator.pin
        generator = ModelSpec(name=GENERATOR, path=path, pin=pin, n_ctx=n_ctx)
        engine = Engine(config, [generator, self.scorer.spec(n_ctx=scorer_n_ctx)]).start()
        return Pair(engine, Scorer(engine, self.scorer.name, self.scorer.files().read()))


Start = Callable[..., Pair]


def make_files(directory: Path) -> Files:
    """Write both models."""
    generator = make_tiny_gguf(directory / "search.gguf", ends=True, seed=3)
    return Files(generator, make_scorer(directory, "skywork"))


def request(seed: int = 0, *, end: float = 12.0, **fields: object) -> GenerationRequest:
    """A request whose answers are short lines of digits; the greater ``end``, the sooner they are over."""
    bias = [(FIRST_BYTE_ID + ord(character), value) for character, value in LANGUAGE.items()]
    defaults = {
        "model": GENERATOR,
        "prompt_token_ids": tuple(70 + (7 * seed + 11 * at) % 200 for at in range(24)),
        "max_tokens": 48,
        "key": sampling_key(seed),
        "logit_bias": (*bias, (END_ID, end)),
    }
    return GenerationRequest(**{**defaults, **fields})  # type: ignore[arg-type]


def plan(strategy: Method, n: int, **fields: object) -> Plan:
    """A plan whose strategy is named like its method."""
    defaults = {"strategy": strategy, "n": n, "rule": SelectionRule(method=strategy)}
    return Plan(**{**defaults, **fields})  # type: ignore[arg-type]


def budget(tokens: int, **fields: object) -> Budget:
    """Of generated tokens."""
    return Budget(policy_tokens=tokens, **fields)  # type: ignore[arg-type]


def stop(kind: str, window: int = 3) -> StopRule:
    """A stopping rule."""
    return StopRule(kind=kind, window=window)  # type: ignore[arg-type]


async def sample_one_by_one(
    pair: Pair, wanted: GenerationRequest, n: int, *, scores: bool
) -> list[Candidate]:
    """The candidates of a search, each alone: nothing is shared, batched or merged."""
    found = []
    for index in range(n):
        with pair.engine.open_tree(replace(wanted, logprobs=0)) as tree:
            branch = tree.root.fork(index + 1)[index]
            extension = await branch.extend()
        given = await _scores(pair, branch.text) if scores else ()
        found.append(
            Candidate(
                text=branch.text,
                n_tokens=len(extension.token_ids),
                logprob=branch.logprob,
                scores=given,
                complete=extension.reason == "stop",
            )
        )
    return found


async def _scores(pair: Pair, text: str) -> Sequence[float]:
    steps = pair.scorer.split(text)
    return (await pair.scorer.score(PROBLEM, steps))[0] if steps else ()
