# SPDX-License-Identifier: Apache-2.0
"""Keys and values of whatever ends are overwritten at once, and those of whoever goes on are not touched."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import TinyModel, make_tiny_gguf

import memory
from adyton_enclave.engine.kv_budget import KvBudget, KvLease
from adyton_enclave.engine.kv_cache import OrderedKvCache
from adyton_enclave.engine.kv_eraser import CellEraser
from adyton_enclave.engine.llama import LlamaBatch, LlamaContext, LlamaModel
from adyton_enclave.engine.settings import EngineConfig
from adyton_protocol.errors import ConfigError, EngineStopped

NEEDLE_BYTES = 48

# Runs in a process of its own, so that the searcher's copy of the needle is not found. What to look for is learnt from
# a context of its own, shown in hexadecimal, and wiped before the first search.
SCRIPT = f"""
import asyncio, sys
from adyton_enclave.engine import Engine, EngineConfig, GenerationRequest, ModelSpec
from adyton_enclave.engine.llama import LlamaBatch, LlamaContext, LlamaModel
from adyton_models.model_files import pin_of
from pathlib import Path

PROMPT = tuple(10 + 3 * i for i in range(40))
path = sys.argv[1]
pin = pin_of(Path(path))
config = EngineConfig(threads=1, n_ctx_total=24576, max_sequences=3)

def needle():
    model = LlamaModel(path, pin)
    context = LlamaContext(model, config)
    batch = LlamaBatch(40)
    batch.add(PROMPT, 0, 0, wants_logits=False)
    context.decode(batch)
    state = context.read_state(0)
    found = memoryview(state)[-{NEEDLE_BYTES + 16} : -16].hex()
    state.fill(0)
    context.scrub()
    context.close()
    model.close()
    return found

def pause(word):
    print(word, flush=True)
    sys.stdin.readline()

def ask(prompt):
    return GenerationRequest(model="m", prompt_token_ids=prompt, max_tokens=8000, key=bytes(32))

async def main():
    pause(needle())
    engine = Engine(config, [ModelSpec(name="m", path=path, pin=pin, n_ctx=8100)]).start()
    # Two of them always hold more than the one that ends: garbage beyond what is in use would be compacted away, and
    # what compaction overwrites would say nothing about clearing.
    neighbours = [engine.submit(ask(tuple(range(60 + 15 * i, 75 + 15 * i)))) for i in range(2)]
    target = engine.submit(ask(PROMPT))
    async for _ in target:
        pause("running")
        break
    target.cancel()
    while engine.status()["m"].running != 2:
        await asyncio.sleep(0)
    steps = neighbours[0].usage.completion_tokens
    while neighbours[0].usage.completion_tokens < steps + 2:
        await asyncio.sleep(0)
    in_time = engine.status()["m"].running == 2
    # Nobody computes while memory is searched: new tokens would soon hide what was not cleared.
    for neighbour in neighbours:
        neighbour.cancel()
    while engine.status()["m"].running:
        await asyncio.sleep(0)
    pause("ended" if in_time else "too slow")
    engine.stop()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A model with room for answers that outlast a search of memory."""
    return make_tiny_gguf(tmp_path_factory.mktemp("long") / "m.gguf", n_ctx=16384)


def test_a_request_that_ends_leaves_nothing_of_the_cache(long: TinyModel) -> None:
    """Beside neighbours that go on: bytes of its last key or value are in memory while it runs, then nowhere."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(long.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def go_on() -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        needle = bytes.fromhex(child.stdout.readline())
        assert len(set(needle)) > NEEDLE_BYTES // 3
        assert memory.occurrences(child.pid, [needle])[needle] == 0
        assert go_on() == "running"
        assert memory.occurrences(child.pid, [needle])[needle] > 0
        assert go_on() == "ended"
        assert memory.occurrences(child.pid, [needle])[needle] == 0
        child.stdin.write("\n")
        child.stdin.flush()


class Cells:
    """A real cache beside its books, and what each sequence's cells must hold."""

    def __init__(self, model: TinyModel, **sizes: object) -> None:
        config = EngineConfig(**{"threads": 1, "n_ctx_total": 256, "max_sequences": 4, **sizes})  # type: ignore[arg-type]
        self.model = LlamaModel(str(model.path), model.pin)
        self.context = LlamaContext(self.model, config)
        self.budget = KvBudget(self.context.n_cells)
        self.cache = OrderedKvCache(self.context, self.budget, config.max_sequences)
        self.leases: dict[int, KvLease] = {}
        self.states: dict[int, bytes] = {}
        self._batch = LlamaBatch(64)

    def grow(self, seq_id: int, count: int) -> None:
        """Compute tokens at the end of a sequence."""
        lease = self.leases.setdefault(seq_id, self.budget.lease())
        self.cache.prepare(count)
        self._batch.clear()
        self._batch.add(
            [5 + (seq_id + i) % 90 for i in range(count)], lease.length, seq_id, wants_logits=False
        )
        self.context.decode(self._batch)
        self.cache.placed(count)
        lease.grow(count)
        self.states[seq_id] = self.context.read_state(seq_id).tobytes()

    def fork(self, source: int, target: int, length: int) -> None:
        """Share a prefix."""
        self.cache.copy(source, target, length)
        self.leases[target] = self.leases[source].fork(length)
        self.states[target] = self.context.read_state(target).tobytes()

    def end(self, seq_id: int) -> None:
        """Give a sequence up."""
        self.cache.remove(seq_id)
        self.leases.pop(seq_id).release()
        del self.states[seq_id]

    def check(self) -> None:
        """Erase, then compare everything."""
        self.cache.erase()
        plug = self.context.read_state(4)
        heads = 28 + 12 * max(1, self.cache.garbage) * 2
        assert np.count_nonzero(plug) <= heads, "the plug's cells are zeros, but for what describes them"
        for seq_id, state in self.states.items():
            assert self.context.read_state(seq_id).tobytes() == state
            assert self.context.length(seq_id) == self.leases[seq_id].length

    def close(self) -> None:
        """Free everything."""
        self.context.close()
        self.model.close()


@settings(max_examples=25)
@given(data=st.data())
def test_exactly_what_ended_is_cleared(data: st.DataObject, tiny: TinyModel) -> None:
    """Whatever is computed, forked and ended in between: what ended is zeros, and no other cell changed a bit."""
    cells = Cells(tiny)
    try:
        for _ in range(data.draw(st.integers(1, 25))):
            seq_id = data.draw(st.integers(0, 3))
            free = [other for other in range(4) if other not in cells.leases]
            match data.draw(st.sampled_from(["grow", "grow", "fork", "end"])):
                case "grow":
                    count = min(data.draw(st.integers(1, 40)), cells.budget.free)
                    if count:
                        cells.grow(seq_id, count)
                case "fork" if seq_id in cells.leases and free:
                    length = data.draw(st.integers(1, cells.leases[seq_id].length))
                    cells.fork(seq_id, free[0], length)
                case "end" if seq_id in cells.leases:
                    cells.end(seq_id)
                    if data.draw(st.booleans()):
                        cells.check()
        cells.check()
    finally:
        cells.close()


@pytest.mark.parametrize(
    "sizes",
    [
        {"kv_type_k": "q8_0", "kv_type_v": "q4_0"},
        {"kv_type_v": "f16", "flash_attention": False},
        {"n_ctx_total": 2048, "max_sequences": 1},
    ],
    ids=["quantised", "transposed", "many"],
)
def test_every_layout_is_cleared(tiny: TinyModel, sizes: dict[str, object]) -> None:
    """Other element types, values stored the other way round, and more cells than fit into one state."""
    cells = Cells(tiny, **sizes)
    try:
        eraser = CellEraser(cells.context, 2 if sizes.get("max_sequences") else 5)
        eraser.n_most = 7
        cells.grow(0, 50)
        cells.context.remove(0)
        eraser.clear(50, 1)
        state = cells.context.read_state(1)
        assert cells.context.length(1) == 1
        assert len(state) > 50 * 64
        assert np.count_nonzero(state) < 28 + 24 * 50
    finally:
        cells.close()


def test_a_refused_state_is_no_success(tiny: TinyModel) -> None:
    """Without free cells nothing is cleared, and that is an error."""
    cells = Cells(tiny)
    try:
        for _ in range(4):
            cells.grow(0, 64)
        with pytest.raises(EngineStopped):
            CellEraser.clear(cells.cache._eraser, 1, 4)
    finally:
        cells.close()


def test_an_unknown_layout_is_an_error_at_start(tiny: TinyModel) -> None:
    """A context that says something else of its cells than we know is not used."""
    cells = Cells(tiny)

    class Stranger:
        n_cells = 256

        def probe(self, seq_id: int) -> None:
            cells.context.probe(seq_id)

        def read_state(self, seq_id: int) -> np.ndarray:
            return np.concatenate([cells.context.read_state(seq_id), np.zeros(4, dtype=np.uint8)])

    try:
        with pytest.raises(ConfigError):
            CellEraser(Stranger(), 5)  # type: ignore[arg-type]
    finally:
        cells.close()
