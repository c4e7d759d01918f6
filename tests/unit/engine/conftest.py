# SPDX-License-Identifier: Apache-2.0
"""A tiny model per session, and engines over it that are stopped whatever happens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_gguf import TinyModel, make_tiny_gguf

from adyton_enclave.engine import Engine, EngineConfig, ModelSpec


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Q8_0 weights, 275 tokens, never ends by itself."""
    return make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def ending(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Like ``tiny``, but control tokens are as likely as others."""
    return make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "ending.gguf", ends=True)


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Make engines of one model, named ``tiny``."""
    engines: list[Engine] = []

    def make(
        model: TinyModel,
        *,
        n_ctx: int = 512,
        generates: bool = True,
        embeddings: bool = False,
        **settings: object,
    ) -> Engine:
        config = EngineConfig(**{"threads": 1, "n_ctx_total": 2048, "max_sequences": 16, **settings})  # type: ignore[arg-type]
        spec = ModelSpec(
            name="tiny",
            path=str(model.path),
            pin=model.pin,
            n_ctx=n_ctx,
            generates=generates,
            embeddings=embeddings,
        )
        engine = Engine(config, [spec])
        engines.append(engine)
        return engine.start()

    yield make
    for engine in engines:
        engine.stop()


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """A place for a file that a test writes itself."""
    return tmp_path / "model.gguf"
