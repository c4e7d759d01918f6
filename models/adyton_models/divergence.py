# SPDX-License-Identifier: Apache-2.0
"""How far the predictions of a quantised model are from those of the original, token by token, on given text.

Both are computed by the engine that serves, side by side, with the whole vocabulary at every position.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine import Engine, EngineConfig, Evaluation, EvaluationRequest, Question
from adyton_models.intervals import Floats, bootstrap, wilson
from adyton_models.serving import model_spec

WINDOW_TOKENS: Final = 256
_NUMBERS_AT_ONCE: Final = 1 << 23
"""Logits that are held at once for each model; 32 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Over all positions of a text.

    Attributes:
        kl: Kullback-Leibler divergence of the candidate from the reference at each position, in nats, shape `(n,)`.
        agree: Whether both find the same token likeliest, shape `(n,)`.
        windows: First position of each window in the arrays; positions of one window are not independent.
    """

    kl: Floats
    agree: npt.NDArray[np.bool_]
    windows: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """Mean with its interval (bootstrap over windows), quantiles, and the share of equal first choices."""
        means = np.array([part.mean() for part in np.split(self.kl, self.windows[1:])])
        low, high = bootstrap(means)
        agreed = int(self.agree.sum())
        return {
            "tokens": int(self.kl.size),
            "kl_mean": float(self.kl.mean()),
            "kl_mean_ci95": [low, high],
            "kl_median": float(np.median(self.kl)),
            "kl_p99": float(np.quantile(self.kl, 0.99)),
            "kl_max": float(self.kl.max()),
            "top1_agreement": agreed / self.agree.size,
            "top1_ci95": list(wilson(agreed, self.agree.size)),
        }


def windows_of(token_ids: Sequence[int], length: int = WINDOW_TOKENS) -> list[list[int]]:
    """A text's tokens in pieces that are predicted one by one; a rest of a single token is left out."""
    pieces = [list(token_ids[start : start + length]) for start in range(0, len(token_ids), length)]
    return [piece for piece in pieces if len(piece) > 1]


def diverge(
    reference: Path,
    candidate: Path,
    windows: Sequence[Sequence[int]],
    *,
    threads: int,
    report: Callable[[float], None] = lambda _share: None,
) -> Divergence:
    """Compare two models on windows of tokens; both have to have the same vocabulary.

    Args:
        reference: The original.
        candidate: The other.
        windows: Token ids; the logits at every position but the last of each are compared.
        threads: Compute threads.
        report: Called with the share that is done.

    Raises:
        ConfigError: A file cannot be served.
    """
    n_ctx = max(len(window) for window in windows) + 1
    config = EngineConfig(
        threads=threads, n_ctx_total=max(n_ctx, WINDOW_TOKENS), max_sequences=8, cache_cells=0
    )
    specs = [
        model_spec(name, path, n_ctx=n_ctx)
        for name, path in (("reference", reference), ("candidate", candidate))
    ]
    engine = Engine(config, specs).start()
    try:
        return asyncio.run(_compare(engine, windows, report))
    finally:
        engine.stop()


async def _compare(
    engine: Engine, windows: Sequence[Sequence[int]], report: Callable[[float], None]
) -> Divergence:
    n_vocab = min(model.n_vocab for model in engine.models.values())
    labels = tuple(range(n_vocab))
    at_once = max(1, _NUMBERS_AT_ONCE // n_vocab)
    kl: list[Floats] = []
    agree: list[npt.NDArray[np.bool_]] = []
    starts = []
    count = 0
    for done, window in enumerate(windows, 1):
        starts.append(count)
        for start in range(0, len(window) - 1, at_once):
            positions = tuple(range(start, min(start + at_once, len(window) - 1)))
            question = Question(positions=positions, label_ids=labels)
            ids = tuple(window[: positions[-1] + 1])
            ours, theirs = await asyncio.gather(
                *(
                    engine.evaluate(EvaluationRequest(model=name, token_ids=ids, question=question))
                    for name in ("reference", "candidate")
                )
            )
            kl.append(kl_divergence(ours, theirs))
            agree.append(ours.label_logits.argmax(axis=1) == theirs.label_logits.argmax(axis=1))
            count += len(positions)
        report(done / len(windows))
    return Divergence(kl=np.concatenate(kl), agree=np.concatenate(agree), windows=tuple(starts))


def kl_divergence(reference: Evaluation, candidate: Evaluation) -> Floats:
    """Sum over the vocabulary of `p (log p - log q)` at each position, in nats; never below 0 but for rounding."""
    p_log, q_log = reference.label_logprobs, candidate.label_logprobs
    found: Floats = np.maximum((np.exp(p_log) * (p_log - q_log)).sum(axis=1), 0.0)
    return found
