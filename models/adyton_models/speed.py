# SPDX-License-Identifier: Apache-2.0
"""How fast two models are beside one another: measured in turn, so that a busy machine is busy for both.

The engine's own code runs, with one stream on one thread.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adyton_enclave.probe import Prober
from adyton_models.model_files import read_files

PROMPT_TOKENS: Final = 256
ANSWER_TOKENS: Final = 32
ROUNDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens per second, medians, and by how much that is more than the reference's, median of the rounds' ratios."""

    prefill: float
    decode: float
    prefill_ratio: float
    decode_ratio: float

    def as_json(self) -> dict[str, float]:
        """With units in the names."""
        return {
            "prefill_tokens_per_s": round(self.prefill, 1),
            "decode_tokens_per_s": round(self.decode, 1),
            "prefill_ratio": round(self.prefill_ratio, 3),
            "decode_ratio": round(self.decode_ratio, 3),
        }


def compare_speed(
    reference: Path,
    candidate: Path,
    *,
    prompt_tokens: int = PROMPT_TOKENS,
    rounds: int = ROUNDS,
    report: Callable[[float], None] = lambda _share: None,
) -> tuple[Speed, Speed]:
    """Measure both models in turn.

    Returns:
        The reference's speed, whose ratios are 1, and the candidate's.

    Raises:
        AdytonError: A model cannot be loaded, or ends its answers too early to be measured.
    """
    probers = Prober(), Prober()
    request = {
        "engine": {"threads": 1},
        "streams": 1,
        "max_sequences": 1,
        "prompt_tokens": prompt_tokens,
        "answer_tokens": ANSWER_TOKENS,
    }
    samples: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for prober, path in zip(probers, (reference, candidate), strict=True):
            read = read_files(path)
            first, *others = map(str, read.paths)
            pin = {"content": read.content.digest, "weights": read.content.weights}
            prober.answer({"load": {"path": first, "more_paths": others, **pin}})
        for done in range(rounds + 1):
            pair = (
                dict(probers[0].answer({"measure": request})),
                dict(probers[1].answer({"measure": request})),
            )
            if done:  # The first round touches memory.
                samples.append(pair)
            report(done / rounds)
    finally:
        for prober in probers:
            prober.close()
    return _speed(samples, 0), _speed(samples, 1)


def _speed(samples: list[tuple[dict[str, Any], dict[str, Any]]], which: int) -> Speed:
    def median(key: str) -> float:
        return 1.0 / statistics.median(float(pair[which][key]) for pair in samples)

    def ratio(key: str) -> float:
        return statistics.median(float(pair[0][key]) / float(pair[which][key]) for pair in samples)

    return Speed(
        prefill=median("prefill_token_s"),
        decode=median("step_s"),
        prefill_ratio=ratio("prefill_token_s"),
        decode_ratio=ratio("step_s"),
    )
