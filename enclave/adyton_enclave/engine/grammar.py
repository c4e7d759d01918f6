# SPDX-License-Identifier: Apache-2.0
"""Grammars that answers have to follow, on llguidance.

SECURITY: grammars are made from callers' JSON schemas and so are hostile. Everything that work or memory could grow
with is limited, while a grammar is compiled and while it is followed: a compilation that exceeds a limit is the
caller's error, and an answer whose grammar exceeds one later ends in an error (an empty mask), never in a wrong
document. Compilations run one at a time in a thread of their own, beside the event loop and the decoding loop, so
that they compete with one another only. Nothing is remembered between requests: whether somebody else used the same
schema must not show. llguidance is kept silent, opens no file and reads no environment; its messages quote the
schema, so they are sorted into ours and dropped.
"""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Final, Protocol, Self

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from adyton_enclave.engine.request import TokenMask
from adyton_protocol.errors import InvalidRequest, QueueFull

MAX_GRAMMAR_CHARS: Final = 256 * 1024
MAX_COMPILE_S: Final = 10.0
MAX_ABANDONED: Final = 2
_WORD_BITS: Final = 32
_SILENT: Final = 0

# Speeds are llguidance's own estimates. Building: 50k fuel a millisecond. Following: 14k fuel and 20k items a
# millisecond, and each lexer state takes 1 to 2 kB.
_LIMITS: Final = {
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 50_000,
    "max_lexer_states": 10_000,
    "max_grammar_size": 200_000,
    "precompute_large_lexemes": False,
    "verbose_errors": False,
}

_REASONS: Final = (
    (r"look-around|look-ahead", "a pattern uses look-around, which is not supported"),
    (r"backreference", "a pattern uses back-references, which are not supported"),
    (r"regex", "a pattern is not a regular expression that is supported"),
    (r"oneOf", "oneOf is supported only where no two branches can match the same value; use anyOf"),
    (r"nimplemented key", "it uses keywords that are not supported"),
    (r"nknown format", "it uses a format that is not supported"),
    (r"nsatisfiable", "no value can satisfy it"),
    (r"retriev|registry|Pointer|\$ref", "a $ref does not lead to a place inside it"),
    (r"Invalid type", "a type is not one of JSON's"),
    (r"too large|too many|too big|fuel|limit|exceed|max is|out of range", "it is too large or too complex"),
)
_REASON_UNKNOWN: Final = "it is not a schema that is supported"
_NEVER_BEGINS: Final = "no finite value can satisfy it"


class Vocabulary(Protocol):
    """What a grammar needs of a model; :class:`adyton_enclave.engine.llama.LlamaModel` fits."""

    n_vocab: int
    eog: frozenset[int]

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """Bytes of every token; empty for control tokens."""
        ...

    @property
    def control_tokens(self) -> dict[str, int]:
        """Text of every control token and its id."""
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of a text."""
        ...


class _Tokens:
    """A vocabulary in the form that llguidance's wrapper expects."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        controls = {token_id: text.encode() for text, token_id in vocabulary.control_tokens.items()}
        self.eos_token_id = min(vocabulary.eog)
        self.tokens: Sequence[bytes] = [
            controls.get(token_id, piece) for token_id, piece in enumerate(vocabulary.pieces)
        ]
        self.special_token_ids = sorted({*controls, *vocabulary.eog})
        self._tokenize = vocabulary.tokenize

    def __call__(self, text: str | bytes) -> list[int]:
        """Tokenise plain text."""
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._tokenize(plain, add_special=False, parse_special=False)


class GrammarMatcher:
    """Where one choice stands. Used by one thread at a time."""

    __slots__ = ("_address", "_mask", "_matcher")

    def __init__(self, matcher: LLMatcher, n_words: int) -> None:
        self._matcher = matcher
        self._mask = np.zeros(n_words, dtype=np.uint32)
        self._address = self._mask.ctypes.data

    def allowed(self) -> TokenMask:
        """The tokens that may follow, in an array that the next call overwrites.

        All zero when the grammar has become too complex to follow: the answer cannot go on, and must not end
        as if it were complete.
        """
        # With an error behind it the matcher would offer the end of text.
        if self._matcher.is_error():
            self._mask.fill(0)
        else:
            self._matcher.unsafe_compute_mask_ptr(self._address, self._mask.nbytes)
            if self._matcher.is_error():
                self._mask.fill(0)
        return self._mask

    def accept(self, token_id: int) -> None:
        """Move past a token; one that was not allowed leaves a matcher that allows nothing."""
        self._matcher.consume_token(token_id)

    def fork(self) -> Self:
        """The same state, to go on from independently."""
        return type(self)(self._matcher.deep_copy(), self._mask.size)


class Grammar:
    """A compiled grammar. Thread-safe: what is shared is never advanced."""

    def __init__(self, pristine: LLMatcher, n_words: int) -> None:
        self._pristine = pristine
        self._n_words = n_words
        self._lock = threading.Lock()

    def matcher(self) -> GrammarMatcher:
        """Start at the beginning of an answer."""
        with self._lock:
            return GrammarMatcher(self._pristine.deep_copy(), self._n_words)


class GrammarCompiler:
    """Compiles grammars for one model."""

    def __init__(self, vocabulary: Vocabulary, *, max_compile_s: float = MAX_COMPILE_S) -> None:
        """Cheap: the vocabulary is only looked at when the first grammar comes."""
        self._vocabulary = vocabulary
        self._n_words = -(-vocabulary.n_vocab // _WORD_BITS)
        self._executor = _one_thread()
        self._max_compile_s = max_compile_s
        self._abandoned = 0

    async def compile(self, lark: str, *, param: str) -> Grammar:
        """Compile beside the event loop.

        Args:
            lark: In llguidance's dialect of Lark; texts of callers in it are JSON strings and JSON schemas only.
            param: The request field to blame.

        Raises:
            InvalidRequest: The grammar is wrong, too complex, or has no answer at all.
            QueueFull: Others keep the compiler busy.
        """
        if self._abandoned >= MAX_ABANDONED:
            raise QueueFull("too many grammars are being compiled", retry_after_s=self._max_compile_s)
        job = self._executor.submit(self.compile_now, lark, param=param)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job), self._max_compile_s)
        except TimeoutError:
            # Waiting for it cancelled it, unless it runs already: then nothing can stop it.
            if not job.running():
                raise QueueFull(
                    "too many grammars are being compiled", retry_after_s=self._max_compile_s
                ) from None
            self._abandon(job)
            raise InvalidRequest(f"{param}: it is too large or too complex", param=param) from None

    def _abandon(self, job: Future[Grammar]) -> None:
        """SECURITY: leave a thread to a compilation that no limit ended; the next ones get another thread."""
        loop = asyncio.get_running_loop()
        self._abandoned += 1
        job.add_done_callback(lambda _job: self._returned(loop))
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = _one_thread()

    def _returned(self, loop: asyncio.AbstractEventLoop) -> None:
        def count() -> None:
            self._abandoned -= 1

        with contextlib.suppress(RuntimeError):  # The loop has ended, and with it all requests.
            loop.call_soon_threadsafe(count)

    def compile_now(self, lark: str, *, param: str) -> Grammar:
        """The same, in this thread.

        Raises:
            InvalidRequest: The grammar is wrong, too complex, or has no answer at all.
        """
        if len(lark) > MAX_GRAMMAR_CHARS:
            raise InvalidRequest(f"{param}: it is too large or too complex", param=param)
        if not self._vocabulary.eog:
            raise InvalidRequest(f"{param}: this model has no end of text", param=param)
        matcher = LLMatcher(
            self._tokenizer,
            json.dumps({"grammars": [{"lark_grammar": lark}]}),
            log_level=_SILENT,
            limits=LLParserLimits(**_LIMITS),  # type: ignore[arg-type]  # one mapping of several types
        )
        reason = _reason(matcher.get_error()) if matcher.is_error() else None
        if reason is None:
            # The first mask is dear, and shows a grammar that nothing can begin.
            first = GrammarMatcher(matcher, self._n_words).allowed()
            if matcher.is_error():
                reason = _reason(matcher.get_error() or "limit")
            elif not first.any():
                reason = _NEVER_BEGINS
        if reason is not None:
            # SECURITY: not llguidance's own words, which quote the schema.
            raise InvalidRequest(f"{param}: {reason}", param=param)
        return Grammar(matcher, self._n_words)

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown(wait=not self._abandoned, cancel_futures=True)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """The vocabulary as a trie. Takes 0.15 s for 49k tokens, 0.65 s for 128k."""
        vocabulary = self._vocabulary
        return LLTokenizer(
            TokenizerWrapper(_Tokens(vocabulary)),
            n_vocab=vocabulary.n_vocab,
            eos_token=sorted(vocabulary.eog),
        )


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="adyton-grammar")


def _reason(message: str) -> str:
    """Our words for what llguidance says."""
    if message.startswith("NoExtension") or "NoExtension" in message:
        return _NEVER_BEGINS
    for pattern, reason in _REASONS:
        if re.search(pattern, message):
            return reason
    return _REASON_UNKNOWN
