# SPDX-License-Identifier: Apache-2.0
"""Loads model files as an enclave does and computes with each, one after the other, in a process that may die of it.

::

    python load_models.py FILE ...      prints a line for every file before it is touched, and one for what came out
"""

import sys
from pathlib import Path

import numpy as np

from adyton_enclave.engine.embedding_context import EmbeddingContext
from adyton_enclave.engine.llama import LlamaBatch, LlamaContext, LlamaModel
from adyton_enclave.engine.settings import EngineConfig
from adyton_models.model_files import pin_of
from adyton_protocol.errors import AdytonError

TEXT = "the man and an ox, naïvely\n<|user|> \U0001f600"


def compute(path: Path) -> str:
    """Load one file, tokenise, decode and spell; what became of it."""
    model = LlamaModel(str(path), pin_of(path))
    try:
        tokens = model.tokenize(TEXT, add_special=True, parse_special=True)[:40] or [0]
        for token_id in range(min(model.n_vocab, 300)):
            model.token_text(token_id)
        config = EngineConfig(threads=1, n_ctx_total=128, n_batch=64, n_ubatch=64)
        if model.why_not_generate is not None:
            vectors = EmbeddingContext(model, config, 64)
            vectors.compute([(tokens, 0)])
            vectors.close()
            return "embedded"
        context, batch = LlamaContext(model, config), LlamaBatch(64)
        batch.add([token for token in tokens if 0 <= token < model.n_vocab], 0, 0, wants_logits=True)
        context.decode(batch)
        finite = bool(np.isfinite(context.logits(1)).all())
        context.close()
        return "decoded" if finite else "decoded without finite numbers"
    finally:
        model.close()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"begin {name}", flush=True)
        try:
            print("end", compute(Path(name)), flush=True)
        except AdytonError as error:
            print("end", type(error).__name__, error, flush=True)
