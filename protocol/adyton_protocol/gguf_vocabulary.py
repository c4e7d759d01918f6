# SPDX-License-Identifier: Apache-2.0
"""Refuses vocabularies that llama.cpp would die of, at load or at the first text that needs what is missing.

Its loader asserts that no two tokens are alike; its tokenizers assert that the tokens which they put at the beginning
and the end exist, and throw where nobody catches when a byte has no token. Chat templates are bounded here, too: they
are programs of the model, and ``chat_template`` in the enclave bounds what they do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import Value
from adyton_protocol.gguf_types import ValueType

MAX_TEMPLATE_BYTES: Final = 256 * 1024
NO_TOKEN: Final = 2**32 - 1
"""How some files write that there is no such token; llama.cpp ignores it."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A tokenizer of llama.cpp: ids that it takes without being told, and which of them it cannot do without."""

    defaults: Mapping[str, int]
    needs: frozenset[str] = frozenset()
    adds_bos: bool = False
    adds_eos: bool = False
    bytes_fall_back: bool = False
    byte_tokens: bool = True


_KINDS: Final = {
    "gpt2": _Kind({"bos": 11, "eos": 11}),
    "llama": _Kind({"bos": 1, "eos": 2, "unknown": 0}, adds_bos=True, bytes_fall_back=True),
    "bert": _Kind(
        {"bos": 101, "unknown": 100, "seperator": 102},
        needs=frozenset({"bos", "unknown", "seperator"}),
        byte_tokens=False,
    ),
    "t5": _Kind({"eos": 1, "unknown": 2}, needs=frozenset({"unknown"}), adds_eos=True),
    "gemma4": _Kind({}, adds_bos=True),
}

_TEXT_KEYS: Final = ("tokenizer.ggml.model", "tokenizer.ggml.pre")
_TEMPLATE_PREFIX: Final = "tokenizer.chat_template"
_ID_SUFFIX: Final = "_token_id"
_TOKEN_TYPES: Final = range(7)
_BYTE: Final = 6
_BYTE_TOKEN: Final = re.compile(rb"<0x[0-9A-Fa-f]{2}>")


def check_vocabulary(metadata: Mapping[str, Value]) -> int:
    """Check tokenizer and chat templates of a header (attacker-controlled); return how many tokens there are.

    Raises:
        ModelFileError: Check ``tokenizer``, ``template`` or ``key-type``.
    """
    for key in _TEXT_KEYS:
        if key in metadata and metadata[key].text is None:
            raise _wrong_type(key, "a text")
    _check_templates(metadata)
    model = metadata.get("tokenizer.ggml.model")
    kind = _KINDS.get((model.text or b"").decode("utf-8", "replace")) if model is not None else None
    if kind is None:
        raise ModelFileError(
            f"tokenizer.ggml.model is none of {', '.join(sorted(_KINDS))}", check="tokenizer"
        )
    tokens = _tokens(metadata)
    _check_lists(metadata, len(tokens))
    _check_byte_tokens(metadata, tokens, allowed=kind.byte_tokens)
    ids = _special_ids(metadata, len(tokens))
    known = {**{name: id_ for name, id_ in kind.defaults.items() if id_ < len(tokens)}, **ids}
    needed = set(kind.needs)
    for name, adds in (("bos", kind.adds_bos), ("eos", kind.adds_eos)):
        if _flag(metadata, f"tokenizer.ggml.add_{name}_token", default=adds):
            needed.add(name)
    if needed - known.keys():
        raise ModelFileError(
            f"the tokenizer needs tokens that are not there: {', '.join(sorted(needed - known.keys()))}",
            check="tokenizer",
        )
    if kind.bytes_fall_back:
        _check_bytes(frozenset(tokens))
    return len(tokens)


def _wrong_type(key: str, what: str) -> ModelFileError:
    return ModelFileError(f"{key} is not {what}", check="key-type")


def _check_templates(metadata: Mapping[str, Value]) -> None:
    for key, value in metadata.items():
        if not key.startswith(_TEMPLATE_PREFIX):
            continue
        texts = value.texts if value.texts is not None else (value.text,)
        for text in texts:
            if text is None:
                raise _wrong_type(key, "a text")
            if len(text) > MAX_TEMPLATE_BYTES:
                raise ModelFileError(
                    f"{key} has {len(text)} bytes; at most {MAX_TEMPLATE_BYTES} are allowed", check="template"
                )
            try:
                text.decode("utf-8")
            except UnicodeDecodeError:
                raise ModelFileError(f"{key} is not UTF-8", check="template") from None


def _tokens(metadata: Mapping[str, Value]) -> tuple[bytes, ...]:
    """Tokens as llama.cpp sees them: up to a NUL, and with a name of their own where they are empty."""
    value = metadata.get("tokenizer.ggml.tokens")
    texts = None if value is None else value.texts
    if texts is None:
        raise _wrong_type("tokenizer.ggml.tokens", "a list of texts")
    tokens = tuple(text.partition(b"\x00")[0] or b"[EMPTY_%d]" % number for number, text in enumerate(texts))
    if not tokens or len(set(tokens)) != len(tokens):
        raise ModelFileError("there are no tokens, or two are alike", check="tokenizer")
    return tokens


def _check_lists(metadata: Mapping[str, Value], n_tokens: int) -> None:
    merges = metadata.get("tokenizer.ggml.merges")
    if merges is not None and merges.texts is None:
        raise _wrong_type("tokenizer.ggml.merges", "a list of texts")
    for key, kinds in (
        ("tokenizer.ggml.scores", {ValueType.FLOAT32, ValueType.INT32}),
        ("tokenizer.ggml.token_type", {ValueType.INT32}),
    ):
        value = metadata.get(key)
        if value is None:
            continue
        if value.count is None or value.type not in kinds:
            raise _wrong_type(key, "a list of such numbers")
        if value.count != n_tokens:
            raise ModelFileError(f"{key} has not one item for each token", check="tokenizer")
    types = metadata.get("tokenizer.ggml.token_type")
    if types is not None and not all(kind in _TOKEN_TYPES for kind in set(types.numbers or ())):
        raise ModelFileError("there are tokens of an unknown type", check="tokenizer")


def _check_byte_tokens(metadata: Mapping[str, Value], tokens: Sequence[bytes], *, allowed: bool) -> None:
    """A token that stands for a byte says for which one."""
    types = metadata.get("tokenizer.ggml.token_type")
    for token, kind in zip(tokens, (None if types is None else types.numbers) or (), strict=False):
        if kind == _BYTE and not (allowed and _BYTE_TOKEN.fullmatch(token)):
            raise ModelFileError("a token is of the type byte and names none", check="tokenizer")


def _special_ids(metadata: Mapping[str, Value], n_tokens: int) -> dict[str, int]:
    found = {}
    for key, value in metadata.items():
        if not key.startswith("tokenizer.ggml.") or not key.endswith(_ID_SUFFIX):
            continue
        number = value.number
        if value.type is not ValueType.UINT32 or not isinstance(number, int):
            raise _wrong_type(key, "of type uint32")
        if number >= n_tokens and number != NO_TOKEN:
            raise ModelFileError(f"{key} is {number}, and there are {n_tokens} tokens", check="tokenizer")
        if number != NO_TOKEN:
            found[key.removeprefix("tokenizer.ggml.").removesuffix(_ID_SUFFIX)] = number
    return found


def _flag(metadata: Mapping[str, Value], key: str, *, default: bool) -> bool:
    value = metadata.get(key)
    if value is None:
        return default
    number = value.number
    if not isinstance(number, bool):
        raise _wrong_type(key, "true or false")
    return number


def _check_bytes(tokens: frozenset[bytes]) -> None:
    """Every byte can be written, or a text with an unknown character would end the process."""
    if not all(b"<0x%02X>" % byte in tokens or bytes([byte]) in tokens for byte in range(256)):
        raise ModelFileError("the tokenizer has no token for some byte", check="tokenizer")
