# SPDX-License-Identifier: Apache-2.0
"""Plain llama.cpp on a plain file: what our own ways of loading are compared with. As a script: load and compute once.

::

    python plain_llama.py FILE        exit status 0: loaded and computed, 3: refused by llama.cpp, else: it died
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as _bindings

_lib: Any = _bindings
REFUSED = 3


@_lib.llama_log_callback
def _discard(_level: int, _text: bytes, _user_data: int | None) -> None:
    """Be silent."""


@contextlib.contextmanager
def _model(path: Path) -> Iterator[Any]:
    _lib.llama_log_set(_discard, ctypes.c_void_p(0))
    params = _lib.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mode = _lib.LLAMA_LOAD_MODE_NONE
    model = _lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise RuntimeError("llama.cpp refuses the file")
    try:
        yield model
    finally:
        _lib.llama_model_free(model)


def logits(path: Path, token_ids: Sequence[int] | None = None) -> np.ndarray:
    """Logits of every token of a prompt (n_tokens, n_vocab), without a chosen prompt those of 24 tokens."""
    with _model(path) as model:
        vocab = _lib.llama_model_get_vocab(model)
        n_vocab = int(_lib.llama_vocab_n_tokens(vocab))
        if token_ids is None:
            token_ids = [(7 * index + 3) % n_vocab for index in range(24)]
        params = _lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 64
        params.n_threads = params.n_threads_batch = 1
        context = _lib.llama_init_from_model(model, params)
        if not context:
            raise RuntimeError("llama.cpp makes no context")
        batch = _lib.llama_batch_init(len(token_ids), 0, 1)
        try:
            batch.n_tokens = len(token_ids)
            for index, token_id in enumerate(token_ids):
                batch.token[index] = token_id
                batch.pos[index] = index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = 1
            if _lib.llama_decode(context, batch) != 0:
                raise RuntimeError("llama.cpp does not decode")
            rows = np.ctypeslib.as_array(_lib.llama_get_logits(context), (len(token_ids), n_vocab))
            return rows.copy()
        finally:
            _lib.llama_batch_free(batch)
            _lib.llama_free(context)


def tokens(path: Path, text: str) -> list[int]:
    """Token ids of a text, control tokens spelt in it included."""
    with _model(path) as model:
        vocab = _lib.llama_model_get_vocab(model)
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 8))()
        count = _lib.llama_tokenize(vocab, data, len(data), buffer, len(buffer), True, True)
        return list(buffer[:count])


def template(path: Path) -> bytes | None:
    """The chat template as llama.cpp gives it."""
    with _model(path) as model:
        found: bytes | None = _lib.llama_model_chat_template(model, None)
        return found


if __name__ == "__main__":
    try:
        logits(Path(sys.argv[1]))
        tokens(Path(sys.argv[1]), "the man in the an\n<|user|>\x00\U0001f600")
    except RuntimeError:
        sys.exit(REFUSED)
