# SPDX-License-Identifier: Apache-2.0
"""An appliance with a model of random weights: for tests where the words do not matter."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tiny_gguf import make_tiny_gguf

from appliance import Appliance, running

TINY = "tiny"
TINY_N_CTX = 2048
TINY_MAX_TOKENS = 8


def tiny_catalog(directory: Path) -> Path:
    """Write the model and a catalog that names it; answers are short unless a request says otherwise."""
    model = make_tiny_gguf(directory / "tiny.gguf", n_ctx=TINY_N_CTX)
    catalog = directory / "catalog.toml"
    catalog.write_text(
        f"""version = 1
[[model]]
name = "{TINY}"
file = "tiny.gguf"
content = "{model.pin.content}"
weights = "{model.pin.weights}"
license = "CC0-1.0"
n_ctx = {TINY_N_CTX}
role = "generator"
embeddings = true
[model.sampling]
max_tokens = {TINY_MAX_TOKENS}
"""
    )
    return catalog


@contextlib.contextmanager
def running_tiny(directory: Path, *options: str) -> Iterator[Appliance]:
    """Run it until the block ends."""
    with running(directory, "--catalog", str(tiny_catalog(directory)), *options) as started:
        yield started
