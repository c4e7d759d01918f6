# SPDX-License-Identifier: Apache-2.0
"""Loading scorers from a configuration: pinned files, identities, and golden vectors before anything is served."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_scorers import TinyScorer, golden_adapter, make_head, write_head

from adyton_enclave.config import Configuration, parse_configuration
from adyton_enclave.server import load_scorers, make_engine
from adyton_protocol.digests import sha256_hex
from adyton_protocol.errors import AdapterError, GoldenMismatch

Scorers = Callable[[str], TinyScorer]


def _configuration(tiny: TinyScorer, adapter: Path, head: Path, **pinned: str) -> Configuration:
    pin = tiny.spec().pin
    digests = {"adapter": sha256_hex(adapter.read_bytes()), "head": sha256_hex(head.read_bytes())}
    return parse_configuration(
        f"""version = 1
attester = "gramine"
[engine]
threads = 1
n_ctx_total = 512
[[model]]
name = "judge"
role = "scorer"
path = "{tiny.path}"
content = "{pin.content}"
weights = "{pin.weights}"
adapter = "{adapter}"
adapter_digest = "{pinned.get("adapter_digest", digests["adapter"])}"
head = "{head}"
head_digest = "{pinned.get("head_digest", digests["head"])}"
n_ctx = 256
""".encode()
    )


async def _load(configuration: Configuration) -> str:
    """The identity of the scorer, once it is loaded and checked."""
    engine = make_engine(configuration).start()
    try:
        scorers = await load_scorers(configuration, engine)
        assert list(scorers) == ["judge"]
        assert not engine.models["judge"].generates
        return engine.models["judge"].identity
    finally:
        engine.stop()


def test_a_scorer_is_loaded_with_what_is_pinned_and_nothing_else(scorers: Scorers, tmp_path: Path) -> None:
    """Another adapter or head is refused by digest; with its digest pinned, by the golden vectors."""
    tiny = scorers("skywork")
    assert tiny.head is not None
    adapter = golden_adapter(tiny, tmp_path / "adapter.toml")
    identity = asyncio.run(_load(_configuration(tiny, adapter, tiny.head)))
    other_head = tmp_path / "head.gguf"
    write_head(other_head, make_head((64, 1), 7))
    shifted = tmp_path / "shifted.toml"
    shifted.write_text(adapter.read_text().replace("[head]", "[read]\noffset = -1\n\n[head]"))
    right = {"adapter": sha256_hex(adapter.read_bytes()), "head": sha256_hex(tiny.head.read_bytes())}
    for wrong in (
        _configuration(tiny, shifted, tiny.head, adapter_digest=right["adapter"]),
        _configuration(tiny, adapter, other_head, head_digest=right["head"]),
    ):
        with pytest.raises(AdapterError, match="not the one configured"):
            asyncio.run(_load(wrong))
    for wrong in (_configuration(tiny, shifted, tiny.head), _configuration(tiny, adapter, other_head)):
        with pytest.raises(GoldenMismatch):
            asyncio.run(_load(wrong))
    commented = tmp_path / "commented.toml"
    commented.write_text(adapter.read_text() + "# another byte\n")
    assert asyncio.run(_load(_configuration(tiny, commented, tiny.head))) != identity


def test_a_convention_without_golden_vectors_is_not_served(scorers: Scorers) -> None:
    """What ships as an example has to be measured for a model first."""
    tiny = scorers("skywork")
    assert tiny.head is not None
    with pytest.raises(GoldenMismatch, match="golden"):
        asyncio.run(_load(_configuration(tiny, tiny.adapter, tiny.head)))
