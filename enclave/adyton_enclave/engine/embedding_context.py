# SPDX-License-Identifier: Apache-2.0
"""The edge to llama.cpp for embeddings: a context of its own over weights that are loaded already.

llama.cpp gives the hidden state of every token, and pooling is done by us: its own pooling wants a whole text in one
micro-batch, so that a long text would hold up everybody else. Models without a KV cache (encoders such as BERT) and
models that attend in both directions leave no choice; a text goes through them in one piece.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as _bindings

from adyton_enclave.engine.kv_eraser import CellEraser
from adyton_enclave.engine.llama import ContextMemory, LlamaBatch, LlamaModel, context_params
from adyton_enclave.engine.settings import EngineConfig
from adyton_protocol.errors import ConfigError, EngineStopped

Rows = npt.NDArray[np.float32]
"""Hidden states, shape ``(n_tokens, width)``."""

Pooling = Literal["mean", "cls", "last"]

STEP_TOKENS: Final = 128
"""Most tokens in a step, unless a model takes a longer text in one piece. llama.cpp computes (and keeps room for) the
logits of each of them, although nobody asks for them, so that more would cost memory and win no speed."""
MAX_TEXTS: Final = 32
"""Most texts in a step."""

_lib: Any = _bindings
_POOLING: Final[dict[int, Pooling]] = {
    _lib.LLAMA_POOLING_TYPE_NONE: "mean",
    _lib.LLAMA_POOLING_TYPE_MEAN: "mean",
    _lib.LLAMA_POOLING_TYPE_CLS: "cls",
    _lib.LLAMA_POOLING_TYPE_LAST: "last",
}


def pooling_of(model: LlamaModel) -> Pooling:
    """How one vector is made of a text's hidden states: as the GGUF says, else their mean.

    Raises:
        ConfigError: The model ranks texts instead of embedding them, or pools in a way that we do not know.
    """
    text = model.metadata(f"{model.metadata('general.architecture')}.pooling_type")
    if text is None:
        return "mean"
    pooling = _POOLING.get(int(text)) if text.isdecimal() else None
    if pooling is None:
        raise ConfigError("the model's pooling_type does not make embeddings")
    return pooling


class EmbeddingContext(ContextMemory):
    """Computes hidden states. Owned by the loop thread.

    Attributes:
        dirty_cells: Cells that hold numbers of texts.
        n_batch: Most tokens in one step.
        max_texts: Most texts in one step.
        whole: True when a text must be computed in one step.
        width: Length of a vector.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig, n_ctx: int) -> None:
        """Allocate the context.

        Raises:
            ConfigError: llama.cpp refuses these sizes, or the model decodes what it has encoded.
        """
        if _lib.llama_model_has_encoder(model.handle) and _lib.llama_model_has_decoder(model.handle):
            raise ConfigError("a model of encoder and decoder makes no embeddings")
        step_tokens = max(2, min(STEP_TOKENS, config.n_batch))
        self.max_texts = min(MAX_TEXTS, step_tokens - 1)
        context = self._new(model, config, n_ctx, step_tokens)
        self.whole = not _lib.llama_get_memory(context) or not _lib.llama_get_causal_attn(context)
        if self.whole:
            _lib.llama_free(context)
            context = self._new(model, config, n_ctx, max(n_ctx, step_tokens))
        super().__init__(context)
        self.width = model.width
        self.n_batch = int(_lib.llama_n_ubatch(context))
        self._batch = LlamaBatch(self.n_batch)
        self._n_tokens = 0
        self.dirty_cells = 0
        # A text of one token gets company where it would take another path through a multiplication than in a batch.
        self._fills = config.batch_invariant and model.weights.needs_two_rows and not self.whole
        self._eraser = self._make_eraser()

    def _new(self, model: LlamaModel, config: EngineConfig, n_ctx: int, n_batch: int) -> Any:
        params = context_params(config)
        params.n_ctx = max(n_ctx, n_batch)
        params.n_batch = n_batch
        params.n_ubatch = n_batch
        params.n_seq_max = self.max_texts + 1  # the last is the filler's
        params.embeddings = True
        params.pooling_type = _lib.LLAMA_POOLING_TYPE_NONE
        context = _lib.llama_init_from_model(model.handle, params)
        if not context:
            raise ConfigError("llama.cpp cannot make a context for embeddings of these sizes")
        return context

    def _make_eraser(self) -> CellEraser | None:
        """What clears single cells, where the cache has a layout that allows it."""
        if not self._memory:
            return None
        try:
            return CellEraser(self, 0)
        except ConfigError:
            # Sliding windows and recurrent states: everything is cleared instead, which takes longer.
            self.scrub()
            return None

    def compute(self, texts: Sequence[tuple[Sequence[int], int]]) -> Rows:
        """Compute pieces of texts, the text at index ``i`` as sequence ``i``.

        Args:
            texts: Token ids of each piece and the position of its first token, at most ``n_batch`` tokens together.

        Returns:
            The hidden state of every token, in order: a view of llama.cpp's buffer, valid until the next call.

        Raises:
            EngineStopped: The context is unusable.
        """
        self._batch.clear()
        for seq_id, (token_ids, start) in enumerate(texts):
            self._batch.add(token_ids, start, seq_id, wants_logits=True)
        self._decode()
        return self.last_rows()

    def last_rows(self) -> Rows:
        """What the last call of :meth:`compute` returned, as it is now."""
        pointer = _lib.llama_get_embeddings(self._context)
        if not pointer:
            raise EngineStopped("llama.cpp has no embeddings")
        rows: Rows = np.ctypeslib.as_array(pointer, (self._n_tokens * self.width,))
        return rows.reshape(self._n_tokens, self.width)

    def erase(self) -> None:
        """Overwrite what was computed and empty the KV cache.

        The next text starts at the first cell, and so gets the numbers that it gets alone.
        """
        if self._memory and self.dirty_cells:
            if self._eraser is None:
                self.scrub()
            else:
                _lib.llama_memory_clear(self._memory, False)
                # Everything lies in the lowest cells, which are the first to be written over.
                self._eraser.clear(self.dirty_cells, 1)
                _lib.llama_memory_clear(self._memory, False)
        self.dirty_cells = 0

    def probe(self, seq_id: int) -> None:
        """Compute some token as the first of a sequence, so that it has one cell."""
        self._batch.clear()
        self._batch.add([0], 0, seq_id, wants_logits=True)
        self._decode()

    def _decode(self) -> None:
        batch = self._batch
        self._n_tokens = batch.n_tokens
        filled = self._fills and batch.n_tokens == 1 and batch.fill(self.max_texts)
        batch.struct.n_tokens = batch.n_tokens + filled
        # All tokens are outputs: that is what ``embeddings`` in the context's parameters means.
        status = int(_lib.llama_decode(self._context, batch.struct))
        if filled:
            # Its cell is the topmost one, so that taking it away leaves no hole.
            self.remove(self.max_texts)
        if status != 0:
            raise EngineStopped(f"llama_decode failed with status {status}")
        self.dirty_cells += batch.n_tokens
