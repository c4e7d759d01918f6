# SPDX-License-Identifier: Apache-2.0
"""The default generator and its scorer on one engine in this process, as the enclave has them, for searches."""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adyton_enclave.engine import (
    Engine,
    EngineConfig,
    GenerationRequest,
    ModelSpec,
    SamplingParams,
    sampling_key,
)
from adyton_enclave.scoring import Scorer
from adyton_host.catalog import CatalogModel, choose, with_scorer
from adyton_models.model_files import pin_of
from adyton_models.scoring import read_ingredients
from appliance_process import ROOT

CATALOG: Final = ROOT / "models" / "catalog.toml"
RESULTS: Final = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Ready:
    """An engine that runs.

    Attributes:
        engine: It.
        generator: Name of the model that answers.
        scorer: Who judges its answers.
        problems: Held-out problems, as text.
        sampling: Defaults of the generator.
    """

    engine: Engine
    generator: str
    scorer: Scorer
    problems: tuple[str, ...]
    sampling: SamplingParams

    def request(
        self, number: int, *, endless: bool = False, examples: int = 0, **fields: object
    ) -> GenerationRequest:
        """The ordinary request for an answer to a problem.

        Args:
            number: Which one.
            endless: Go on to the last token that is allowed.
            examples: Other problems that stand before it.
            fields: Of the request, in place of what is usual.
        """
        model = self.engine.models[self.generator]
        asked = [self.problems[(number + other) % len(self.problems)] for other in range(examples, -1, -1)]
        prompt = model.apply_chat_template([{"role": "user", "content": "\n".join(asked)}])
        bias = tuple((token_id, -100.0) for token_id in sorted(model.llama.eog)) if endless else ()
        wanted = {
            "model": self.generator,
            "prompt_token_ids": tuple(prompt),
            "max_tokens": 256,
            "key": sampling_key(number),
            "sampling": self.sampling,
            "logit_bias": bias,
        }
        return GenerationRequest(**{**wanted, **fields})  # type: ignore[arg-type]  # the caller knows them


@contextmanager
def search_engine(
    *,
    threads: int = 0,
    cells: int = 16_384,
    sequences: int = 96,
    model: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Ready]:
    """Load both models; ``threads`` is 0 for all cores but one, as in the enclave.

    Raises:
        ConfigError: The catalog has no such model, or no scorer for it.
    """
    generator, *scorers = with_scorer(CATALOG, choose(CATALOG, model))
    scorer, *_ = scorers
    if scorer.adapter is None:
        raise ValueError("a scorer without an adapter")
    ingredients = read_ingredients(scorer.adapter.path, None if scorer.head is None else scorer.head.path)
    config = EngineConfig(threads=threads, n_ctx_total=cells, max_sequences=sequences)
    specs = [
        _spec(generator),
        ModelSpec(
            name=scorer.name,
            path=str(scorer.path),
            pin=pin_of(scorer.path),
            n_ctx=scorer.n_ctx,
            generates=False,
            scorer=ingredients.parts,
            hidden_states=ingredients.head is not None,
        ),
    ]
    engine = Engine(config, specs, clock=clock).start()
    try:
        yield Ready(
            engine=engine,
            generator=generator.name,
            scorer=Scorer(engine, scorer.name, ingredients),
            problems=_problems(ROOT / "models" / "shipped" / "heldout.jsonl"),
            sampling=_sampling(generator),
        )
    finally:
        engine.stop()


def machine() -> dict[str, object]:
    """What a reader of the figures has to know about the machine."""
    return {"cpu_count": os.cpu_count(), "load_before": os.getloadavg()[0]}


def new_parser(doc: str, output: Path, *, cells: int) -> argparse.ArgumentParser:
    """What the command lines of these benches have in common.

    Args:
        doc: Of the module; its first line describes the bench.
        output: Where results go.
        cells: KV cells of each model.
    """
    parser = argparse.ArgumentParser(
        description=doc.split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--model", help="a name in the catalog that has a scorer; its default otherwise")
    add("--threads", type=int, default=0, help="compute threads; 0 is all cores but one")
    add("--cells", type=int, default=cells, help="KV cells of each model")
    add("--output", type=Path, default=output, help="results")
    add("--json", action="store_true", help="print the results as JSON and nothing else")
    return parser


def publish(
    document: dict[str, Any], arguments: argparse.Namespace, table: Callable[[dict[str, Any]], str]
) -> None:
    """Leave results as JSON, and print them as asked for."""
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document) if arguments.json else f"{table(document)}\nwritten: {arguments.output}")


def _spec(model: CatalogModel) -> ModelSpec:
    return ModelSpec(name=model.name, path=str(model.path), pin=pin_of(model.path), n_ctx=model.n_ctx)


def _sampling(model: CatalogModel) -> SamplingParams:
    given = model.sampling
    return SamplingParams(
        temperature=given.get("temperature", 1.0),
        top_p=given.get("top_p", 1.0),
        top_k=int(given.get("top_k", 0)),
        min_p=given.get("min_p", 0.0),
    )


def _problems(path: Path) -> tuple[str, ...]:
    return tuple(json.loads(line)["problem"] for line in path.read_text(encoding="utf-8").splitlines())
