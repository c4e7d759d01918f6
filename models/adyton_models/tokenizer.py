# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of the shipped model: one token per word of the task, bytes for everything else.

It is a byte-level BPE in GPT-2's form, so llama.cpp runs it from the GGUF (`tokenizer.ggml.model =
gpt2`, pre-tokenizer `gpt-2`). Its merges are the prefix chains of ` word` (with the leading space) for
every word of `tasks.templates`, so a known word always becomes one token and any other text falls apart
into prefixes and bytes, and decodes to itself. A number is one token per digit, the first of them with
its space.
"""

import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, cached_property

from adyton_models.tasks.render import ANSWER_PREFIX
from adyton_models.tasks.templates import FRAMES, NAMES, STYLES

BEGIN, END, USER, ASSISTANT, SYSTEM, PADDING = (
    "<s>",
    "</s>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|pad|>",
)
STEP, STEP_GOOD, STEP_BAD = "<step>", "<+>", "<->"
"""Reserved for a process scorer: asks for, and gives, the verdict on the step before."""

_RESERVED = tuple(f"<|reserved{index}|>" for index in range(7))
SPECIAL_TOKENS: tuple[str, ...] = (
    PADDING, BEGIN, END, USER, ASSISTANT, SYSTEM, STEP, STEP_GOOD, STEP_BAD, *_RESERVED,
)  # fmt: skip
_VOCABULARY_MULTIPLE = 64
_MARK = "\u0120"  # how GPT-2's byte alphabet writes a space


@cache
def byte_alphabet() -> tuple[str, ...]:
    """GPT-2's printable character for each byte value."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {value: chr(value) for value in printable}
    following = 256
    for value in range(256):
        if value not in characters:
            characters[value] = chr(following)
            following += 1
    return tuple(characters[value] for value in range(256))


def task_words() -> tuple[str, ...]:
    """Every word and sign the task writes behind a space, sorted; digits included."""
    pieces: set[str] = set(NAMES)
    for frame in FRAMES:
        pieces.update((frame.said, frame.asked, frame.auxiliary, *frame.nouns))
    for style in STYLES:
        for field in style.__dataclass_fields__:
            pieces.update(re.findall(r"[A-Za-z]+", re.sub(r"\{.\}", "", getattr(style, field))))
    pieces.update(re.findall(r"[A-Za-z]+", ANSWER_PREFIX))
    pieces.update(string.digits)
    pieces.update(("+", "-", "x", "/", "=", "("))
    return tuple(sorted(pieces))


def _kind(character: str) -> str:
    if character.isspace():
        return "space"
    category = unicodedata.category(character)[0]
    return {"L": "letter", "N": "number"}.get(category, "other")


_CONTRACTION = re.compile(r"'(?:s|t|re|ve|m|ll|d)")


def pre_tokenize(text: str) -> list[str]:
    r"""Split like GPT-2: `'s|'t|…| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`."""
    pieces: list[str] = []
    position = 0
    while position < len(text):
        contraction = _CONTRACTION.match(text, position)
        if contraction is not None:
            pieces.append(contraction.group())
            position = contraction.end()
            continue
        start = position
        if text[position] == " " and position + 1 < len(text) and not text[position + 1].isspace():
            position += 1
        kind = _kind(text[position])
        while position < len(text) and _kind(text[position]) == kind:
            position += 1
        if kind == "space" and position < len(text) and position - start > 1:
            position -= 1
        pieces.append(text[start:position])
    return pieces


class Tokenizer:
    """The fixed vocabulary with encoding and decoding; equal to what llama.cpp does with the exported GGUF.

    Order: special tokens, bytes, words, spare tokens, prefixes of words. Only the first `trained` ids
    occur in the task, so only they have rows in training. Prefixes are there because llama.cpp drops
    what a merge makes if that is no token; the export gives each of them the row of the first spare
    token, `spare`, which training never saw either.
    """

    def __init__(self, words: Iterable[str] | None = None) -> None:
        self.words = tuple(task_words() if words is None else words)
        pieces = [*SPECIAL_TOKENS, *byte_alphabet(), *(_MARK + word for word in self.words)]
        missing = -(len(pieces) + 1) % _VOCABULARY_MULTIPLE + 1
        self.spare = len(pieces)
        pieces.extend(f"<|spare{index}|>" for index in range(missing))
        self.trained = len(pieces)
        known = set(pieces)
        pieces.extend(left + right for left, right in self.merges if left + right not in known)
        self.pieces = tuple(pieces)
        self.ids = {piece: index for index, piece in enumerate(self.pieces)}

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def first_word(self) -> int:
        """The id of the first word token; below are special tokens and bytes."""
        return len(SPECIAL_TOKENS) + 256

    @cached_property
    def merges(self) -> tuple[tuple[str, str], ...]:
        """Merge rules by rank: the prefix chain of every word, shorter prefixes first."""
        prefixes = {_MARK + word[:length] for word in self.words for length in range(1, len(word) + 1)}
        ordered = sorted(prefixes, key=lambda prefix: (len(prefix), prefix))
        return tuple((prefix[:-1], prefix[-1]) for prefix in ordered)

    @cached_property
    def _prefixes(self) -> frozenset[str]:
        return frozenset(left + right for left, right in self.merges)

    def _encode_piece(self, piece: str) -> list[int]:
        known = self.ids.get(_MARK + piece[1:]) if piece[0] == " " else None
        if known is not None:
            return [known]
        alphabet = byte_alphabet()
        symbols = "".join(alphabet[value] for value in piece.encode())
        ids: list[int] = []
        if symbols[0] == _MARK:
            # Only a symbol that starts with the space's mark ever merges, so the longest prefix chain wins.
            length = 1
            while length < len(symbols) and symbols[: length + 1] in self._prefixes:
                length += 1
            prefix = symbols[:length]
            ids.append(self.ids[prefix])
            symbols = symbols[length:]
        ids.extend(self.ids[character] for character in symbols)
        return ids

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens in it are treated as text."""
        return [token_id for piece in pre_tokenize(text) for token_id in self._encode_piece(piece)]

    def encode_known(self, text: str) -> list[int]:
        """Fast path for text made only of task words, single spaces and newlines; equal to `encode` on it."""
        ids: list[int] = []
        for piece in _KNOWN.findall(text):
            found = self.ids.get(piece.replace(" ", _MARK).replace("\n", "\u010a"))
            ids.extend([found] if found is not None else self._encode_piece(piece))
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out, broken UTF-8 becomes U+FFFD."""
        values = {character: value for value, character in enumerate(byte_alphabet())}
        data = bytearray()
        for token_id in token_ids:
            piece = self.pieces[token_id]
            if token_id >= len(SPECIAL_TOKENS) and not piece.startswith("<|spare"):
                data.extend(values[character] for character in piece)
        return data.decode(errors="replace")

    def prompt(self, problem: str) -> list[int]:
        """Token ids of a single-turn chat up to where the assistant begins."""
        return [self.ids[BEGIN], self.ids[USER], *self.encode_known(f" {problem}"), self.ids[ASSISTANT]]


_KNOWN = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s")
