# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/embeddings``, parsed at the edge."""

from dataclasses import dataclass, field
from typing import Final, Literal

from adyton_enclave.api.fields import MAX_TEXT_CHARS, Fields, parse_object
from adyton_enclave.api.parameters import EMBEDDINGS, treat
from adyton_enclave.api.types import DEFAULT_MODEL, MAX_MODEL_CHARS, MAX_TOKENS, RequestLimits, parse_privacy
from adyton_enclave.privacy import Profile

MAX_DIMENSIONS: Final = 1 << 20

Input = str | tuple[int, ...]
"""A text, or token ids not yet compared with the vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """A parsed request.

    Attributes:
        inputs: At least one, none of them empty.
        encoding: How vectors are written.
        dimensions: Length to cut vectors to, not yet compared with theirs.
        ignored: Names of parameters that the caller gave in vain.
        size_bytes: Of the request; decides whether it is prepared beside the event loop.
    """

    model: str
    inputs: tuple[Input, ...] = field(repr=False)
    encoding: Literal["float", "base64"]
    dimensions: int | None
    privacy: Profile | None
    ignored: tuple[str, ...]
    size_bytes: int


def parse_embedding_call(body: bytes, limits: RequestLimits) -> EmbeddingCall:
    """Parse the attacker-controlled body of a request for embeddings.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    call = EmbeddingCall(
        model=fields.text("model", max_chars=MAX_MODEL_CHARS) or DEFAULT_MODEL,
        inputs=_inputs(fields, limits),
        encoding=_encoding(fields),
        dimensions=fields.whole("dimensions", low=1, high=MAX_DIMENSIONS),
        privacy=parse_privacy(fields),
        ignored=treat(fields, EMBEDDINGS),
        size_bytes=len(body),
    )
    fields.finish()
    return call


def _encoding(fields: Fields) -> Literal["float", "base64"]:
    match fields.text("encoding_format", max_chars=16):
        case None | "float":
            return "float"
        case "base64":
            return "base64"
        case _:
            raise fields.wrong("encoding_format", "must be float or base64")


def _inputs(fields: Fields, limits: RequestLimits) -> tuple[Input, ...]:
    value = fields.take("input")
    if isinstance(value, str):
        return (_text(fields, value),)
    if not isinstance(value, list) or not value:
        raise fields.wrong("input", "is required: a string, token ids, or an array of either, not empty")
    if isinstance(value[0], int):
        return (_token_ids(fields, value, limits),)
    if len(value) > limits.max_inputs:
        raise fields.wrong("input", f"must have at most {limits.max_inputs} inputs")
    return tuple(
        _text(fields, item) if isinstance(item, str) else _token_ids(fields, item, limits) for item in value
    )


def _text(fields: Fields, value: str) -> str:
    if not 0 < len(value) <= MAX_TEXT_CHARS:
        raise fields.wrong("input", f"must have texts of 1 to {MAX_TEXT_CHARS} characters")
    return value


def _token_ids(fields: Fields, value: object, limits: RequestLimits) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise fields.wrong("input", "must be a string, token ids, or an array of either, not empty")
    if len(value) > limits.max_input_tokens:
        raise fields.wrong("input", f"must have at most {limits.max_input_tokens} tokens")
    token_ids: list[int] = []
    for item in value:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < MAX_TOKENS:
            raise fields.wrong("input", "holds something that is not a token id")
        token_ids.append(item)
    return tuple(token_ids)
