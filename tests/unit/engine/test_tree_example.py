# SPDX-License-Identifier: Apache-2.0
"""The search that the enclave's README shows, as it stands there, with a generator and a scorer."""

import asyncio
import re
from pathlib import Path

from engine_calls import answers, request, until
from tiny_gguf import TinyModel

from adyton_enclave.engine import Engine, EngineConfig, ModelSpec

README = Path(__file__).parents[3] / "enclave" / "README.md"


async def test_the_search_in_the_readme_finds_the_same_answer_beside_other_work(
    tiny: TinyModel, ending: TinyModel
) -> None:
    """It runs, its answer depends on its seed and not on its neighbours, and it leaves nothing behind."""
    (source,) = re.findall(r"```python\n(import asyncio\n.*?)```", README.read_text(), re.DOTALL)
    scope: dict[str, object] = {}
    exec(compile(source, README.name, "exec"), scope)  # noqa: S102  # our own documentation
    beam = scope["beam"]
    specs = [
        ModelSpec(name=name, path=str(model.path), pin=model.pin, n_ctx=400)
        for name, model in (("generator", tiny), ("scorer", ending))
    ]
    engine = Engine(EngineConfig(threads=1, n_ctx_total=800, max_sequences=12), specs).start()
    try:
        wanted = request(1, model="generator", prompt_tokens=50, max_tokens=120)
        judged = request(1, model="scorer", prompt_tokens=50, max_tokens=120)
        alone = await beam(engine, wanted, judged, 70, 71)  # type: ignore[operator]
        noise = [
            asyncio.ensure_future(answers(engine, request(n, model=name, max_tokens=90)))
            for n in range(8)
            for name in ("generator", "scorer")
        ]
        assert await beam(engine, wanted, judged, 70, 71) == alone  # type: ignore[operator]
        other = request(2, model="generator", prompt_token_ids=wanted.prompt_token_ids, max_tokens=120)
        assert (await beam(engine, other, judged, 70, 71))[0] != alone[0]  # type: ignore[operator]
        text, logprob, usage = alone
        assert text
        assert logprob < 0
        assert usage.completion_tokens > 4 * 20
        await asyncio.gather(*noise)
        await until(lambda: not any(status.kv_cells_used for status in engine.status().values()))
    finally:
        engine.stop()
