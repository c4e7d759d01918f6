# SPDX-License-Identifier: Apache-2.0
"""Digests, canonical JSON and commitments: the few hash constructions that the protocol uses.

Commitments stand in receipts where a bare hash would let anybody who holds the receipt try out guesses of a
prompt or an answer. ::

    opening_key(label) = HKDF-Expand(receipt secret, "adyton commitment v1" || 0x00 || label, 32)
    commitment(label)  = HMAC-SHA-256(opening_key(label), data)

The receipt secret comes out of the HPKE context of the exchange (``export_receipt_secret``), so only the
client and the enclave know it. Disclosing the opening key of one label lets a third party check that one
commitment, and tells nothing about the secret or about the other labels.
"""

import hashlib
import hmac
import re
from typing import Final, NewType, cast

import rfc8785

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.suite import RECEIPT_SECRET_BYTES

Digest = NewType("Digest", str)
"""``sha256:`` and 64 lower-case hexadecimal digits."""

SHA256_BYTES: Final = 32
OPENING_KEY_BYTES: Final = 32
DIGEST_PATTERN: Final = re.compile(r"sha256:[0-9a-f]{64}")
COMMITMENT_PATTERN: Final = re.compile(r"hmac-sha256:[0-9a-f]{64}")
DIGEST_CHARS: Final = len("sha256:") + 2 * SHA256_BYTES
COMMITMENT_CHARS: Final = len("hmac-sha256:") + 2 * SHA256_BYTES

_COMMITMENT_INFO: Final = b"adyton commitment v1\x00"
_LABEL_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def sha256_hex(data: bytes) -> Digest:
    """Return the SHA-256 of some bytes in the notation of ``aci/1``: ``sha256:<hex>``."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def as_digest(text: str) -> Digest:
    """Return a string of our own side as a digest.

    Raises:
        LocalProtocolError: The text is not ``sha256:`` and 64 lower-case hexadecimal digits.
    """
    if DIGEST_PATTERN.fullmatch(text) is None:
        raise LocalProtocolError("a digest is written sha256: and 64 lower-case hexadecimal digits")
    return Digest(text)


def digest_bytes(digest: Digest) -> bytes:
    """Return the 32 bytes that a digest names."""
    return bytes.fromhex(as_digest(digest).removeprefix("sha256:"))


def jcs(value: object) -> bytes:
    """Serialise a value in the one way that is digested and signed (RFC 8785).

    Args:
        value: None, booleans, integers within double precision, finite floats, strings, lists, tuples, and
            dictionaries with string keys. Documents of ``aci/1`` hold no floats; their parsers refuse them.

    Raises:
        LocalProtocolError: The value has no canonical form.
    """
    try:
        return rfc8785.dumps(cast("dict[str, None]", value))
    except (ValueError, RecursionError) as cause:
        raise LocalProtocolError("the value has no canonical JSON form") from cause


def opening_key(secret: bytes, label: str) -> bytes:
    """Derive the 32-byte key of one label; it may be disclosed to whoever shall check that commitment.

    Args:
        secret: The receipt secret of the exchange, 32 bytes.
        label: What is committed to, for example ``request.body``.

    Raises:
        LocalProtocolError: Wrong length or form.
    """
    if len(secret) != RECEIPT_SECRET_BYTES:
        raise LocalProtocolError(f"a receipt secret has {RECEIPT_SECRET_BYTES} bytes")
    if _LABEL_PATTERN.fullmatch(label) is None:
        raise LocalProtocolError("a commitment label has 1 to 64 characters out of a-z 0-9 . - _")
    # RFC 5869 section 2.3 with L = 32: one block, T(1) = HMAC(PRK, info || 0x01).
    return hmac.digest(secret, _COMMITMENT_INFO + label.encode("ascii") + b"\x01", "sha256")


class Commitment:
    """A commitment that is computed while the data passes by."""

    def __init__(self, secret: bytes, label: str) -> None:
        """Start with the receipt secret (32 bytes) and the label of what follows.

        Raises:
            LocalProtocolError: As :func:`opening_key`.
        """
        self._state = hmac.new(opening_key(secret, label), digestmod="sha256")

    def update(self, data: bytes) -> None:
        """Take in the next part of the data."""
        self._state.update(data)

    def value(self) -> str:
        """Return the commitment to everything so far, ``hmac-sha256:<hex>``."""
        return "hmac-sha256:" + self._state.hexdigest()


def commit(secret: bytes, label: str, data: bytes) -> str:
    """Return the commitment to ``data`` under ``label``: ``hmac-sha256:<hex>``.

    Raises:
        LocalProtocolError: As :func:`opening_key`.
    """
    commitment = Commitment(secret, label)
    commitment.update(data)
    return commitment.value()


def commitment_matches(commitment: str, key: bytes, data: bytes) -> bool:
    """Say, in constant time, whether ``commitment`` is the one to ``data`` under a disclosed opening key.

    Args:
        commitment: Attacker-controlled; anything but ``hmac-sha256:<hex>`` matches nothing.
        key: The opening key, exactly 32 bytes.
        data: The bytes in question.

    Raises:
        LocalProtocolError: The key has another length.
    """
    # SECURITY: HMAC pads short keys with zeros, so that keys of several lengths give one commitment.
    if len(key) != OPENING_KEY_BYTES:
        raise LocalProtocolError(f"an opening key has {OPENING_KEY_BYTES} bytes")
    expected = "hmac-sha256:" + hmac.digest(key, data, "sha256").hex()
    return hmac.compare_digest(commitment.encode("utf-8", "replace"), expected.encode("ascii"))
