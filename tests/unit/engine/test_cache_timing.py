# SPDX-License-Identifier: Apache-2.0
"""Nobody learns by timing whether another's prompt was seen before, unless both chose to share.

A victim asks a prompt. Then a probe asks the same prompt, and one that nobody ever asked, in random order. If times
of first tokens told the two apart, one of them would come out faster more often than a fair coin allows. The same
test, with the same number of trials, must notice the difference where prefixes are shared on purpose; otherwise its
silence would mean nothing. How many tokens were computed is compared as well, and that without statistics.
"""

import math
import time

import numpy as np
import pytest
from engine_calls import answers, request, until
from tiny_gguf import TinyModel, make_tiny_gguf

from adyton_enclave.engine import Engine, EngineConfig, GenerationRequest, ModelSpec

TRIALS = 30
ALPHA = 1e-4
PROMPT_TOKENS = 300
MINE, OTHER = b"m" * 32, b"o" * 32


def sign_test(differences: list[float]) -> float:
    """Two-sided p-value of the hypothesis that positive and negative differences are equally likely."""
    n = sum(difference != 0 for difference in differences)
    extreme = max(sum(difference > 0 for difference in differences), sum(d < 0 for d in differences))
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(extreme, n + 1)) / 2**n)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A model for which a prompt takes milliseconds."""
    return make_tiny_gguf(tmp_path_factory.mktemp("heavy") / "m.gguf", width=128, layers=2)


class Probe:
    """An engine with its defaults, and how long a first token takes there."""

    def __init__(self, model: TinyModel) -> None:
        spec = ModelSpec(name="tiny", path=str(model.path), pin=model.pin, n_ctx=512)
        self.engine = Engine(EngineConfig(threads=1), [spec]).start()

    async def first_token(self, wanted: GenerationRequest) -> tuple[float, int]:
        """Seconds to the first event of an answer, and tokens computed for it, on an engine that was idle."""
        await until(lambda: self.engine.status()["tiny"].running == 0)
        before = self.engine.status()["tiny"].computed_tokens
        started_s = time.perf_counter()
        first_s = 0.0
        async for _ in self.engine.submit(wanted):
            first_s = first_s or time.perf_counter() - started_s
        await until(lambda: self.engine.status()["tiny"].running == 0)
        return first_s, self.engine.status()["tiny"].computed_tokens - before


async def _compare(
    probe: Probe, *, victim: bytes | None, prober: bytes | None
) -> tuple[list[float], list[int]]:
    """Differences, over the trials, of an asked and a fresh prompt: in seconds, and in computed tokens.

    Where it shares with nobody, every request of the prober has a namespace of its own, so that it does not find its
    own prompts either.
    """
    rng = np.random.default_rng(7)
    seconds: list[float] = []
    tokens: list[int] = []
    for trial in range(TRIALS):
        apart = prober is not None and prober != victim
        asked, fresh = (
            request(
                seed,
                prompt_tokens=PROMPT_TOKENS,
                max_tokens=2,
                cache_namespace=seed.to_bytes(32, "big") if apart else prober,
            )
            for seed in (2 * trial, 2 * trial + 1)
        )
        await answers(probe.engine, request(2 * trial, prompt_tokens=PROMPT_TOKENS, cache_namespace=victim))
        found = {}
        for name in rng.permutation(["asked", "fresh"]):
            found[str(name)] = await probe.first_token(asked if name == "asked" else fresh)
        seconds.append(found["asked"][0] - found["fresh"][0])
        tokens.append(found["asked"][1] - found["fresh"][1])
    return seconds, tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "prober"),
    [(None, None), (MINE, None), (None, OTHER), (MINE, OTHER)],
    ids=["nobody caches", "the victim does", "the prober does", "both do, apart"],
)
async def test_a_first_token_does_not_tell_what_others_asked(
    heavy: TinyModel, victim: bytes | None, prober: bytes | None
) -> None:
    """With the default settings, and with caching that was not shared on purpose."""
    probe = Probe(heavy)
    try:
        seconds, tokens = await _compare(probe, victim=victim, prober=prober)
    finally:
        probe.engine.stop()
    assert tokens == [0] * TRIALS
    assert sign_test(seconds) > ALPHA, seconds


@pytest.mark.slow
async def test_the_test_notices_a_shared_prefix(heavy: TinyModel) -> None:
    """Positive control: in one namespace the asked prompt is faster, and the same test says so."""
    probe = Probe(heavy)
    try:
        seconds, tokens = await _compare(probe, victim=MINE, prober=MINE)
    finally:
        probe.engine.stop()
    assert max(tokens) < -PROMPT_TOKENS // 2
    assert sign_test(seconds) < ALPHA
    assert sum(seconds) < 0


@pytest.mark.parametrize(
    ("differences", "significant"),
    [([1.0] * 30, True), ([-1.0] * 26 + [1.0] * 4, True), ([1.0, -1.0] * 15, False), ([0.0] * 30, False)],
)
def test_the_sign_test_is_one(differences: list[float], significant: bool) -> None:
    """One-sided runs are significant, balanced ones and ties are not."""
    assert (sign_test(differences) < ALPHA) is significant
