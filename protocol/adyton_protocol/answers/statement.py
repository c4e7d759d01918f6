# SPDX-License-Identifier: Apache-2.0
"""What a sentence behind "the answer is" says, where it says more than the answer.

From the surest reading to the least sure: the whole line, its first sentence, what stands behind the last equals
sign, the sentence before an explanation, and its only number. Two numbers without more are no number: "12 apples and
Bob 7" is a text, since taking the last, or the first, would be a guess.
"""

import re
from collections.abc import Iterator
from typing import Final

from adyton_protocol.answers.canonical import key_of
from adyton_protocol.answers.extraction import numbers
from adyton_protocol.answers.rule import Equivalence

_SENTENCE_END: Final = re.compile(r"[.!?](?=[ \t\r\n*_\"')\]]|$)", re.ASCII)
_EXPLANATION: Final = re.compile(
    r",? (?:because|since|as|so|which|where|when|given|for|i\.e\.|that is|namely)(?![A-Za-z])| [(\[]|; | - ",
    re.ASCII | re.IGNORECASE,
)
_DENIAL: Final = re.compile(
    r"\b(?:not?|never|neither|nor|without|unknown|unclear)\b|n't", re.ASCII | re.IGNORECASE
)


def statement_key(line: str, equivalence: Equivalence) -> tuple[str, str] | None:
    """The key of what a line states, and the part of the line that it was read from; None when nothing can be read.

    Args:
        line: What stands behind "the answer is"; attacker-controlled, at most ``MAX_ANSWER_CHARACTERS`` long.
        equivalence: The kind of answer.
    """
    for part in _readings(line):
        key = key_of(part, equivalence)
        if key is not None and not key.startswith("text:"):
            return key, part
    sentence = _sentence(line)
    key = key_of(sentence, equivalence)
    return None if key is None else (key, sentence)


def _readings(line: str) -> Iterator[str]:
    yield line
    sentence = _sentence(line)
    yield sentence
    if "=" in sentence:
        yield sentence.rpartition("=")[2].strip(" ")
    explanation = _EXPLANATION.search(sentence)
    if explanation is not None:
        yield sentence[: explanation.start()]
    if _DENIAL.search(sentence) is None:
        yield from _only_number(sentence)


def _sentence(line: str) -> str:
    end = _SENTENCE_END.search(line)
    return line if end is None else line[: end.start()]


def _only_number(sentence: str) -> Iterator[str]:
    found = numbers(sentence)
    if len(found) == 1:
        # With what follows, which may be its unit.
        yield sentence[sentence.rindex(found[0]) :]
        yield found[0]
