# SPDX-License-Identifier: Apache-2.0
"""One made-up scorer of each convention per session, and engines over them that are stopped whatever happens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_scorers import CONVENTIONS, TinyScorer, make_scorer

from adyton_enclave.engine import Engine, EngineConfig
from adyton_enclave.scoring import Scorer


@pytest.fixture(scope="session")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyScorer]:
    """A made-up scorer by the name of its convention."""
    directory = tmp_path_factory.mktemp("scorers")
    made: dict[str, TinyScorer] = {}

    def get(name: str) -> TinyScorer:
        if name not in made:
            made[name] = make_scorer(directory, name)
        return made[name]

    return get


LARGE = "qwen2.5-math-prm"
"""Its vocabulary of 151,664 tokens takes seconds to load."""


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] if name == LARGE else []) for name in CONVENTIONS]
)
def tiny(request: pytest.FixtureRequest, scorers: Callable[[str], TinyScorer]) -> TinyScorer:
    """Each convention in turn."""
    return scorers(request.param)


@pytest.fixture
def start() -> Iterator[Callable[..., Scorer]]:
    """Make scorers on engines of their own."""
    engines: list[Engine] = []

    def make(tiny: TinyScorer, *, adapter: Path | None = None, **settings: object) -> Scorer:
        sizes = {"threads": 1, "n_ctx_total": 2048, "max_sequences": 16, **settings}
        engine = Engine(EngineConfig(**sizes), [tiny.spec()])  # type: ignore[arg-type]
        engines.append(engine)
        engine.start()
        return Scorer(engine, tiny.name, tiny.files(adapter).read())

    yield make
    for engine in engines:
        engine.stop()
