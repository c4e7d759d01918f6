# SPDX-License-Identifier: Apache-2.0
"""The edge to llama.cpp: everything that is ``Any``, a pointer or undefined behaviour ends in this module.

Thin owners with ``close`` around model, context, batch and thread pool. Lengths and ranges are checked here,
because C would not. llama.cpp's log goes nowhere: its messages may name token ids, that is, content.
"""

import ctypes
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as _bindings

from adyton_enclave.engine.invariance import read_weights
from adyton_enclave.engine.settings import OWN_SEQUENCES, EngineConfig, KvType
from adyton_enclave.weights.model_file import ModelFile
from adyton_enclave.weights.stream import CookieStream
from adyton_protocol.errors import ConfigError, EngineStopped, OutOfMemory
from adyton_protocol.model_identity import ModelPin

_lib: Any = _bindings

# SECURITY: on a failed assertion ggml would start a debugger to print a backtrace, arguments included.
os.environ["GGML_NO_BACKTRACE"] = "1"


@_lib.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
def _discard(_level: int, _text: bytes, _user_data: int | None) -> None:
    """SECURITY: drop the line; error messages of llama_decode quote token ids and positions."""


# The callback must outlive every call into the library, so it lives at module level.
_lib.llama_log_set(_discard, ctypes.c_void_p(0))

KV_TYPES: Final[dict[KvType, int]] = {
    "f16": _lib.GGML_TYPE_F16,
    "q8_0": _lib.GGML_TYPE_Q8_0,
    "q4_0": _lib.GGML_TYPE_Q4_0,
}
_CONTROL_ATTRIBUTES: Final[int] = _lib.LLAMA_TOKEN_ATTR_CONTROL | _lib.LLAMA_TOKEN_ATTR_UNKNOWN
_NO_KV_SLOT: Final = 1
_MARK: Final = "\x01"
"""A character that no token but its own byte's has in it."""


class NoKvSlot(OutOfMemory):
    """``llama_decode`` found no cells for the batch and changed nothing."""


class LlamaModel:
    """Weights and vocabulary. Thread-safe for reading."""

    def __init__(self, source: str | ModelFile, pin: ModelPin, *, batch_invariant: bool = True) -> None:
        """Load the files' verified bytes into memory.

        Args:
            source: A file under the host's control, or the opened files of a split or sealed model, which stay open.
            pin: What they have to hold.
            batch_invariant: Let llama.cpp use no kernel whose results depend on the batch where another is at
                hand. All models of a process must agree: ggml asks once, when it first multiplies by a K-quant.

        Raises:
            ModelFileError: A file is missing, malformed, altered, or not the one that is pinned.
            ConfigError: It is no model that llama.cpp can load.
        """
        if isinstance(source, str):
            with ModelFile.open([source], pin) as file:
                self._load(file, batch_invariant=batch_invariant)
        else:
            self._load(source, batch_invariant=batch_invariant)
        self._vocab: Any = _lib.llama_model_get_vocab(self._model)
        self.n_vocab = int(_lib.llama_vocab_n_tokens(self._vocab))
        self.width = int(_lib.llama_model_n_embd_out(self._model))
        self.n_ctx_train = int(_lib.llama_model_n_ctx_train(self._model))
        self.n_params = int(_lib.llama_model_n_params(self._model))
        self.add_bos = bool(_lib.llama_vocab_get_add_bos(self._vocab))
        self.bos = int(_lib.llama_vocab_bos(self._vocab))
        self.eos = int(_lib.llama_vocab_eos(self._vocab))
        self.eog = frozenset(i for i in range(self.n_vocab) if _lib.llama_vocab_is_eog(self._vocab, i))

    def _load(self, file: ModelFile, *, batch_invariant: bool) -> None:
        self.weights = read_weights(file.model)
        params = _lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = self.weights.repack or not batch_invariant
        os.environ["GGML_CPU_TILED_MM"] = "0" if batch_invariant else "1"
        # SECURITY: no mapping and no reading later on; every tensor is copied out of hashed blocks now.
        params.load_mode = _lib.LLAMA_LOAD_MODE_NONE
        params.lazy_mode = _lib.LLAMA_LAZY_MODE_OFF
        with CookieStream(file) as stream:
            self._model: Any = _lib.llama_model_load_from_file_ptr(stream.pointer, params)
            try:
                stream.check()
                # SECURITY: before this has returned nobody has compared the weights that llama.cpp holds.
                file.finish()
            except BaseException:
                self.close()
                raise
        if not self._model:
            raise ConfigError("llama.cpp cannot load the model file")

    @property
    def handle(self) -> Any:
        """``llama_model *``."""
        return self._model

    @property
    def why_not_generate(self) -> str | None:
        """Why the engine cannot keep this model's past, which it shares, forks and clears cell by cell; or None."""
        if _lib.llama_model_n_swa(self._model) > 0:
            # llama.cpp fills cells that fell out of the window anew, so that a fork would find them gone.
            return "it attends through a sliding window"
        if _lib.llama_model_is_recurrent(self._model) or _lib.llama_model_is_hybrid(self._model):
            return "it keeps its past in a recurrent state"
        if _lib.llama_model_has_encoder(self._model) or _lib.llama_model_is_diffusion(self._model):
            return "it does not write one token after the other"
        return None

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """Bytes of every token; empty for control tokens."""
        return tuple(self._piece(token_id, special=False) for token_id in range(self.n_vocab))

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """Text of every control token, which only templates may produce, and its id."""
        tokens = {}
        for token_id in range(self.n_vocab):
            if int(_lib.llama_vocab_get_attr(self._vocab, token_id)) & _CONTROL_ATTRIBUTES:
                text = self.token_text(token_id)
                if text:
                    tokens[text] = token_id
        return tokens

    def metadata(self, key: str) -> str | None:
        """A scalar of the GGUF's header in llama.cpp's spelling, if it is there; at most 255 bytes of it."""
        buffer = ctypes.create_string_buffer(256)
        if int(_lib.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))) < 0:
            return None
        return buffer.value.decode("utf-8", "replace")

    def token_ids_of(self, spellings: Iterable[str]) -> dict[str, int]:
        """Those spellings that are single user-defined tokens, which plain text can spell, and their ids."""
        found = {}
        for text in spellings:
            token_ids = self.tokenize(text, add_special=False, parse_special=True)
            if len(token_ids) == 1 and (
                int(_lib.llama_vocab_get_attr(self._vocab, token_ids[0])) & _lib.LLAMA_TOKEN_ATTR_USER_DEFINED
            ):
                found[text] = token_ids[0]
        return found

    @cached_property
    def chat_template(self) -> str | None:
        """The template of the GGUF, if it has one."""
        text = _lib.llama_model_chat_template(self._model, None)
        return None if text is None else text.decode("utf-8")

    def token_text(self, token_id: int) -> str:
        """Text of a token, control tokens spelt out; empty for ids that the vocabulary lacks."""
        if not 0 <= token_id < self.n_vocab:
            return ""
        return self._piece(token_id, special=True).decode("utf-8", "replace")

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of a text (attacker-controlled).

        Args:
            text: Any text; lone surrogates become U+FFFD.
            add_special: Add beginning and end of text as the vocabulary says.
            parse_special: Turn the spelling of control tokens into control tokens. SECURITY: never for text
                that comes from a caller.
        """
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        buffer = (ctypes.c_int32 * size)()
        count = int(
            _lib.llama_tokenize(self._vocab, data, len(data), buffer, size, add_special, parse_special)
        )
        if count < 0:
            raise EngineStopped("llama.cpp made more tokens than the text has bytes")
        return list(buffer[:count])

    def tokenize_on(self, text: str) -> list[int]:
        """Token ids of text (attacker-controlled) that goes on after other text.

        Vocabularies after SentencePiece put a space in front of a text; here none is put.

        Raises:
            ConfigError: The vocabulary merges control characters with text, so that there is no telling.
        """
        begin = self._mark_ids
        if not begin:
            return self.tokenize(text, add_special=False, parse_special=False)
        return self.tokenize(_MARK + text, add_special=False, parse_special=False)[len(begin) :]

    @cached_property
    def _mark_ids(self) -> tuple[int, ...]:
        """What the vocabulary makes of a mark that stands before text; empty where text needs no mark."""
        plain = self.tokenize("a", add_special=False, parse_special=False)
        if b"".join(self.pieces[token_id] for token_id in plain) == b"a":
            return ()
        if sum(_MARK.encode() in piece for piece in self.pieces) > 1:
            raise ConfigError("the vocabulary has tokens that join control characters with text")
        return tuple(self.tokenize(_MARK, add_special=False, parse_special=False))

    def close(self) -> None:
        """Free the weights. Idempotent; no context may be left."""
        if self._model:
            _lib.llama_model_free(self._model)
            self._model = None

    def _piece(self, token_id: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = int(_lib.llama_token_to_piece(self._vocab, token_id, buffer, size, 0, special))
            if length >= 0:
                return buffer.raw[:length]
            size = -length


class LlamaBatch:
    """Input of one step: four arrays that numpy fills and C reads. Owned by the loop thread."""

    def __init__(self, capacity: int) -> None:
        """Make room for ``capacity`` tokens, each in exactly one sequence, and a filler."""
        self.capacity = capacity
        self.n_tokens = 0
        self.n_rows = 0
        capacity += 1
        self._token = np.zeros(capacity, dtype=np.int32)
        self._pos = np.zeros(capacity, dtype=np.int32)
        self._seq = np.zeros(capacity, dtype=np.int32)
        self._n_seq = np.ones(capacity, dtype=np.int32)
        self._wants = np.zeros(capacity, dtype=np.int8)
        step = self._seq.itemsize
        self._seq_rows = (self._seq.ctypes.data + step * np.arange(capacity)).astype(np.uintp)
        self.struct: Any = _lib.llama_batch()
        for name, array in (
            ("token", self._token),
            ("pos", self._pos),
            ("n_seq_id", self._n_seq),
            ("seq_id", self._seq_rows),
            ("logits", self._wants),
        ):
            kind = dict(_lib.llama_batch._fields_)[name]  # ctypes' own name
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, kind))
        self.struct.embd = None

    def clear(self) -> None:
        """Start a new step."""
        self.n_tokens = 0
        self.n_rows = 0

    def add(
        self, token_ids: Sequence[int], start: int, seq_id: int, *, wants_logits: bool, at: Sequence[int] = ()
    ) -> None:
        """Append consecutive tokens of a sequence.

        Args:
            token_ids: They.
            start: Position of the first.
            seq_id: The sequence.
            wants_logits: Whether to compute the logits of the last.
            at: Offsets into ``token_ids`` where to compute logits as well.
        """
        begin, end = self.n_tokens, self.n_tokens + len(token_ids)
        if end > self.capacity:
            raise ValueError("the batch is full")
        self._token[begin:end] = token_ids
        self._pos[begin:end] = range(start, start + len(token_ids))
        self._seq[begin:end] = seq_id
        self._wants[begin:end] = 0
        if wants_logits:
            self._wants[end - 1] = 1
            self.n_rows += 1
        for offset in at:
            self._wants[begin + offset] = 1
        self.n_rows += len(at)
        self.n_tokens = end

    def fill(self, seq_id: int) -> bool:
        """Append a token of no meaning where tokens or rows of logits would be alone; true if that was so."""
        if self.n_tokens != 1 and self.n_rows != 1:
            return False
        end = self.n_tokens
        self._token[end] = self._pos[end] = 0
        self._seq[end] = seq_id
        self._wants[end] = self.n_rows
        return True


class ContextMemory:
    """A ``llama_context`` as the owner of KV cells. Owned by the loop thread.

    Attributes:
        n_cells: How many there are to use.
    """

    def __init__(self, context: Any) -> None:
        """Take ownership of the context; one without KV cache has no cells to ask for."""
        self._context: Any = context
        self._memory: Any = _lib.llama_get_memory(context)
        self.n_cells = int(_lib.llama_n_ctx(context))

    @property
    def handle(self) -> Any:
        """``llama_context *``."""
        return self._context

    def copy(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the first ``length`` cells of ``source``."""
        _lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def remove(self, seq_id: int, start: int = 0) -> None:
        """Take ``seq_id`` off its cells from position ``start`` on."""
        _lib.llama_memory_seq_rm(self._memory, seq_id, start, -1)

    def hand_over(self, seq_id: int, heir: int) -> None:
        """Give all cells of ``seq_id`` to ``heir``, no sequence in the ordinary sense."""
        _lib.llama_memory_seq_cp(self._memory, seq_id, heir, -1, -1)
        _lib.llama_memory_seq_rm(self._memory, seq_id, -1, -1)

    def read_state(self, seq_id: int) -> npt.NDArray[np.uint8]:
        """The cells of one sequence with their numbers, as llama.cpp writes them."""
        size = int(_lib.llama_state_seq_get_size(self._context, seq_id))
        state = np.empty(size, dtype=np.uint8)
        pointer = ctypes.cast(state.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        return state[: int(_lib.llama_state_seq_get_data(self._context, pointer, size, seq_id))]

    def write_state(self, seq_id: int, state: npt.NDArray[np.uint8]) -> bool:
        """Give a sequence new cells with these numbers, the lowest that are free, in place of what it had.

        Returns:
            False when llama.cpp did not take the state as it is; then the sequence has no cells.
        """
        pointer = ctypes.cast(state.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        taken = _lib.llama_state_seq_set_data(self._context, pointer, len(state), seq_id)
        return int(taken) == len(state)

    def scrub(self) -> None:
        """Forget every sequence and overwrite the KV buffers with zeros."""
        _lib.llama_memory_clear(self._memory, True)

    def length(self, seq_id: int) -> int:
        """Cells of a sequence, by llama.cpp's own count: its last position plus one."""
        return int(_lib.llama_memory_seq_pos_max(self._memory, seq_id)) + 1

    def close(self) -> None:
        """Free the context. Idempotent."""
        if self._context:
            _lib.llama_free(self._context)
            self._context = None


def context_params(config: EngineConfig) -> Any:
    """``llama_context_params`` with what every context has in common: threads, attention, the cache's types."""
    params = _lib.llama_context_default_params()
    params.n_threads = config.compute_threads
    params.n_threads_batch = config.compute_threads
    params.flash_attn_type = (
        _lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if config.flash_attention else _lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.type_k = KV_TYPES[config.kv_type_k]
    params.type_v = KV_TYPES[config.kv_type_v]
    params.kv_unified = True
    params.offload_kqv = False
    params.op_offload = False
    params.no_perf = True
    return params


HIDDEN_STEP_TOKENS: Final = 128
"""Most tokens in a step of a context that keeps hidden states. llama.cpp then computes, and keeps room for, the logits
and the hidden state of each of them, so that more would cost memory."""


class LlamaContext(ContextMemory):
    """A KV cache and the computation over it. Owned by the loop thread.

    Attributes:
        n_batch: Most tokens in one step.
        n_rows: Most rows of outputs in one step.
        outputs_all: True when every token has a row, wanted or not, because hidden states are kept.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig, *, hidden_states: bool = False) -> None:
        """Allocate everything now, so that serving allocates nothing.

        Args:
            model: The weights.
            config: Sizes.
            hidden_states: Keep the hidden state of every token of a step beside its logits.

        Raises:
            ConfigError: llama.cpp refuses these sizes.
        """
        self.outputs_all = hidden_states
        params = context_params(config)
        params.n_ctx = config.n_ctx_total
        # Beside those that run: the plug that keeps cells in order, the eraser that clears them, what is kept, and
        # the filler, which is the last.
        params.n_seq_max = config.max_sequences + config.cached_sequences + OWN_SEQUENCES
        fills = config.batch_invariant and model.weights.needs_two_rows
        self._filler = params.n_seq_max - 1 if fills else None
        self.n_batch = min(config.n_batch, config.n_ctx_total - fills)
        if hidden_states:
            self.n_batch = min(self.n_batch, max(HIDDEN_STEP_TOKENS, config.max_sequences))
        params.n_batch = self.n_batch + fills
        # The filler of a full step must not start a micro-batch of its own.
        params.n_ubatch = config.n_ubatch if config.n_ubatch < self.n_batch else params.n_batch
        # One row of logits per sequence and step: the output buffer is sized for that, not for a batch. (Evaluating
        # every one of 256 tokens with a vocabulary of 128k takes 1.3 times as long as with rows for all of them, and
        # half as long as with one row for each step; a row costs a megabyte, buffers of the graph included.)
        # (llama.cpp asserts that there is one for every sequence id. How many of them one sequence has only
        # matters to its own samplers.)
        params.n_outputs_max = self.n_rows = params.n_seq_max
        if hidden_states:
            # What ``embeddings`` means to llama.cpp: all tokens are outputs. No pooling: one state for each.
            params.embeddings = True
            params.pooling_type = _lib.LLAMA_POOLING_TYPE_NONE
            self.n_rows = self.n_batch
            params.n_outputs_max = max(params.n_batch, params.n_seq_max)
        context = _lib.llama_init_from_model(model.handle, params)
        if not context:
            raise ConfigError("llama.cpp cannot make a context of these sizes")
        super().__init__(context)
        self._n_vocab = model.n_vocab
        self.width = model.width
        self._n_outputs = int(params.n_outputs_max)
        self._logits_at: int | None = None
        self._logits = np.empty((0, self._n_vocab), dtype=np.float32)
        # One cell is the filler's.
        self.n_cells -= fills

    def decode(self, batch: LlamaBatch) -> None:
        """Compute a batch. Releases the interpreter lock meanwhile.

        Raises:
            NoKvSlot: No cells; nothing changed.
            EngineStopped: Anything else; the state of the cache is unknown.
        """
        filled = self._filler is not None and batch.fill(self._filler)
        batch.struct.n_tokens = batch.n_tokens + filled
        status = int(_lib.llama_decode(self._context, batch.struct))
        if filled and self._filler is not None:
            # Its cell is the topmost one, so that taking it away leaves no hole.
            self.remove(self._filler)
        if status == _NO_KV_SLOT:
            raise NoKvSlot("llama.cpp found no KV cells for the step")
        if status != 0:
            raise EngineStopped(f"llama_decode failed with status {status}")

    def logits(self, n_rows: int) -> npt.NDArray[np.float32]:
        """The rows that the last batch asked for, in its order; shape ``(n_rows, n_vocab)``.

        A view of llama.cpp's buffer: valid until the next :meth:`decode`.
        """
        if not n_rows:
            return np.empty((0, self._n_vocab), dtype=np.float32)
        address = ctypes.cast(_lib.llama_get_logits(self._context), ctypes.c_void_p).value
        if not address:
            raise EngineStopped("llama.cpp has no logits")
        if address != self._logits_at:
            # The buffer stays where it is once it has grown to its size; making the view is dear, so it is kept.
            pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
            self._logits = np.ctypeslib.as_array(pointer, (self._n_outputs, self._n_vocab))
            self._logits_at = address
        return self._logits[:n_rows]

    def hidden(self, n_rows: int) -> npt.NDArray[np.float32]:
        """Hidden states of the first ``n_rows`` tokens of the last batch, in its order; shape ``(n_rows, width)``.

        A view of llama.cpp's buffer, which may be written to: valid until the next :meth:`decode`.
        """
        pointer = _lib.llama_get_embeddings(self._context)
        if not pointer:
            raise EngineStopped("llama.cpp has no hidden states")
        rows: npt.NDArray[np.float32] = np.ctypeslib.as_array(pointer, (n_rows * self.width,))
        return rows.reshape(n_rows, self.width)

    def compact(self) -> None:
        """Close all holes between occupied cells, keeping their order and their sharing.

        Raises:
            EngineStopped: The state could not be written or read back.
        """
        size = int(_lib.llama_state_get_size(self._context))
        state = np.empty(size, dtype=np.uint8)
        pointer = ctypes.cast(state.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        written = int(_lib.llama_state_get_data(self._context, pointer, size))
        restored = int(_lib.llama_state_set_data(self._context, pointer, written)) if written else 0
        # SECURITY: this is everybody's cache, and the allocator would keep it as it is.
        state.fill(0)
        if not written or restored != written:
            raise EngineStopped("llama.cpp could not compact the KV cache")

    def probe(self, seq_id: int) -> None:
        """Compute some token as the first of a sequence, so that it has one cell."""
        batch = LlamaBatch(1)
        batch.add([0], 0, seq_id, wants_logits=False)
        self.decode(batch)
