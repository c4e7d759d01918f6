# SPDX-License-Identifier: Apache-2.0
"""Candidates of one problem with the scores of several scorers, and what the first `n` of them would have cost."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adyton_protocol.selection.candidate import Candidate

_FOOLED_DOMAIN: Final = b"adyton fooled scorer v1\x00"
_DIGEST_BITS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What one scorer says of one text.

    Attributes:
        steps: Of the text, as the scorer's adapter cuts it.
        scores: Of each; empty where the text is too long for the scorer.
        tokens: That the scorer reads of each.
    """

    steps: tuple[str, ...] = field(repr=False)
    scores: tuple[float, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One scorer's view of a pool.

    Attributes:
        prefix_tokens: That it reads of the problem.
        texts: What it says of each distinct text.
    """

    prefix_tokens: int
    texts: Mapping[str, Scored] = field(repr=False)

    def candidate(self, candidate: Candidate) -> Candidate:
        """A candidate with this scorer's scores."""
        found = self.texts[candidate.text]
        return Candidate(
            text=candidate.text,
            n_tokens=candidate.n_tokens,
            logprob=candidate.logprob,
            scores=found.scores,
            complete=candidate.complete,
        )

    def tokens_of(self, candidates: Sequence[Candidate]) -> int:
        """Tokens that it reads to score these; a beginning that several have in common is read once."""
        read: dict[tuple[str, ...], int] = {}
        for text in dict.fromkeys(candidate.text for candidate in candidates):
            scored = self.texts[text]
            for count, tokens in enumerate(scored.tokens, 1):
                read[scored.steps[:count]] = tokens
        return self.prefix_tokens + sum(read.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Candidates of one problem and seed, in the order of their making.

    Attributes:
        question_id: Of the problem.
        seed: Decides every draw.
        prompt_tokens: Of the generator's prompt.
        candidates: Without scores.
        readers: What each scorer says, by its name.
    """

    question_id: str
    seed: int
    prompt_tokens: int
    candidates: tuple[Candidate, ...] = field(repr=False)
    readers: Mapping[str, Reader] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Candidates of one seed as they were sampled."""

    seed: int
    prompt_tokens: int
    candidates: tuple[Candidate, ...] = field(repr=False)


def pool_record(question_id: str, sampled: Sampled) -> dict[str, Any]:
    """Candidates as a JSON object; each distinct text once."""
    texts = list(dict.fromkeys(candidate.text for candidate in sampled.candidates))
    at = {text: index for index, text in enumerate(texts)}
    return {
        "q": question_id,
        "s": sampled.seed,
        "prompt": sampled.prompt_tokens,
        "texts": texts,
        "candidates": [
            [at[each.text], each.n_tokens, round(each.logprob, 6), each.complete]
            for each in sampled.candidates
        ],
    }


def read_pool_record(record: Mapping[str, Any]) -> tuple[Candidate, ...]:
    """The candidates of what :func:`pool_record` made."""
    texts = record["texts"]
    return tuple(
        Candidate(text=texts[at], n_tokens=n_tokens, logprob=logprob, complete=complete)
        for at, n_tokens, logprob, complete in record["candidates"]
    )


def score_record(question_id: str, scorer: str, reader: Reader) -> dict[str, Any]:
    """A scorer's view of texts as a JSON object."""
    return {
        "q": question_id,
        "scorer": scorer,
        "prefix": reader.prefix_tokens,
        "texts": [
            [text, list(each.steps), [round(score, 7) for score in each.scores], list(each.tokens)]
            for text, each in reader.texts.items()
        ],
    }


def read_score_record(record: Mapping[str, Any]) -> Reader:
    """What :func:`score_record` made."""
    return Reader(
        prefix_tokens=record["prefix"],
        texts={
            text: Scored(steps=tuple(steps), scores=tuple(scores), tokens=tuple(tokens))
            for text, steps, scores, tokens in record["texts"]
        },
    )


def merged(readers: Sequence[Reader]) -> Reader:
    """Views by the same scorer of several parts of one pool, together."""
    texts: dict[str, Scored] = {}
    for reader in readers:
        texts.update(reader.texts)
    return Reader(prefix_tokens=readers[0].prefix_tokens, texts=texts)


def fooled(reader: Reader, question_id: str, *, share: float) -> Reader:
    """A worse scorer made of a good one: of all texts, a share gets 1 for every step, whatever it says.

    Which texts fool it follows from problem and text alone, as with a real scorer that has a blind spot: sampling
    more finds more of them. SHA-256 of both decides.
    """

    def is_fooled(text: str) -> bool:
        digest = hashlib.sha256(_FOOLED_DOMAIN + f"{question_id}\n{text}".encode()).digest()
        return bool(int.from_bytes(digest[: _DIGEST_BITS // 8]) < share * 2**_DIGEST_BITS)

    return _rescored(reader, lambda text, scores: [1.0] * len(scores) if is_fooled(text) else scores)


def noisy(reader: Reader, question_id: str, *, sigma: float) -> Reader:
    """A worse scorer made of a good one: independent normal noise of `sigma` on the log-odds of each beginning."""

    def rescore(text: str, scores: Sequence[float]) -> Sequence[float]:
        steps = reader.texts[text].steps
        return [
            _logistic(_log_odds(score) + sigma * _normal(f"{question_id}\n{steps[:count]!r}"))
            for count, score in enumerate(scores, 1)
        ]

    return _rescored(reader, rescore)


def _rescored(reader: Reader, rescore: Callable[[str, Sequence[float]], Sequence[float]]) -> Reader:
    return Reader(
        prefix_tokens=reader.prefix_tokens,
        texts={
            text: Scored(steps=each.steps, scores=tuple(rescore(text, each.scores)), tokens=each.tokens)
            for text, each in reader.texts.items()
        },
    )


def _normal(name: str) -> float:
    """A standard normal number that a name stands for (Box and Muller, on SHA-256)."""
    digest = hashlib.sha256(_FOOLED_DOMAIN + name.encode()).digest()
    one, two = (int.from_bytes(digest[at : at + 7]) / 2**56 for at in (0, 7))
    return math.sqrt(-2.0 * math.log(1.0 - one)) * math.cos(2.0 * math.pi * two)


def _log_odds(score: float) -> float:
    kept = min(max(score, 1e-6), 1.0 - 1e-6)
    return math.log(kept / (1.0 - kept))


def _logistic(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))
