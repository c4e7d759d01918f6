# SPDX-License-Identifier: Apache-2.0
"""What the API needs of the engine. :class:`adyton_enclave.engine.Engine` fits; so does a test's stand-in."""

from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from adyton_enclave.engine import (
    Constraint,
    EmbeddingRequest,
    Embeddings,
    Event,
    GenerationRequest,
    SamplingParams,
    Tree,
    Usage,
)
from adyton_enclave.engine.dialect import Dialect
from adyton_enclave.scoring.adapter import Adapter
from adyton_enclave.scoring.scorer import ScoringTree
from adyton_enclave.scoring.terms import ScoringTerms
from adyton_protocol.digests import Digest


class Model(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str:
        """As callers write it."""
        ...

    @property
    def identity(self) -> Digest:
        """Digest of everything that can change an answer."""
        ...

    @property
    def content(self) -> Digest:
        """Digest of what its files hold."""
        ...

    @property
    def n_ctx(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def n_vocab(self) -> int:
        """Number of token ids."""
        ...

    @property
    def n_params(self) -> int:
        """Numbers in its tensors, by which its FLOPs are counted."""
        ...

    @property
    def generates(self) -> bool:
        """Whether it answers."""
        ...

    @property
    def embedding_width(self) -> int:
        """Length of its vectors; 0 when it makes none."""
        ...

    @property
    def why_inexact(self) -> str | None:
        """Why the same request may get another answer next time; None when it cannot."""
        ...

    @property
    def defaults(self) -> SamplingParams:
        """Sampling for requests that leave it out."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a caller's text; no control token can be forged in it."""
        ...

    def detokenize(self, token_ids: Sequence[int]) -> bytes:
        """Bytes of tokens within the vocabulary; control tokens have none."""
        ...

    @property
    def dialect(self) -> Dialect:
        """How the model marks tool calls and reasoning."""
        ...

    def spell(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, control tokens spelt out."""
        ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn."""
        ...

    async def compile_grammar(self, lark: str, *, param: str) -> Constraint:
        """A grammar for this model's answers, or an InvalidRequest that blames ``param``."""
        ...


class Generation(Protocol):
    """A running request; iterate once."""

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        ...

    def cancel(self) -> None:
        """Stop the work within one step."""
        ...

    def __aiter__(self) -> AsyncIterator[Event]:
        """Its events as they come; raises what ended the request early."""
        ...


class Scorer(Protocol):
    """A process reward model. :class:`adyton_enclave.scoring.Scorer` fits."""

    @property
    def name(self) -> str:
        """Of its model."""
        ...

    @property
    def threshold(self) -> float:
        """Score from which a step counts as sound."""
        ...

    @property
    def adapter(self) -> Adapter:
        """How it is asked, what a step is, and what searches with it were measured to bring."""
        ...

    @property
    def model(self) -> Model:
        """The model that scores."""
        ...

    def open(self, problem: str, terms: ScoringTerms) -> ScoringTree:
        """Begin to score answers to a problem, or raise an EngineError at once."""
        ...

    def split(self, text: str) -> list[str]:
        """The steps of an answer, none of them blank."""
        ...

    async def score(
        self, problem: str, steps: Sequence[str], terms: ScoringTerms
    ) -> tuple[tuple[float, ...], Usage]:
        """A score for each step, and the tokens that were read; or an EngineError."""
        ...


class Engine(Protocol):
    """The decoding loop."""

    @property
    def models(self) -> Mapping[str, Model]:
        """Loaded models by name, in configured order."""
        ...

    @property
    def failed(self) -> bool:
        """True when the loop died; only a new process helps."""
        ...

    def forget_namespaces(self, namespaces: AbstractSet[bytes]) -> None:
        """Give up whatever is kept for these cache namespaces."""
        ...

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request, or raise an EngineError at once."""
        ...

    def open_tree(self, request: GenerationRequest) -> Tree:
        """Begin a tree search, or raise an EngineError at once."""
        ...

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Turn texts into vectors. Cancelling the caller stops the work within one step."""
        ...
