# SPDX-License-Identifier: Apache-2.0
"""The attestation statement: the one thing a quote of this service ever speaks about (``aci/1`` section 3.2).

::

    statement   = {"keyset_digest":"sha256:<hex>","nonce":"<64 hex>"|null,"purpose":"aci.report_data.v1"}
    report_data = SHA-256(statement) || 32 zero bytes

SECURITY: no function takes raw report data, and none must be added. A caller who could choose report_data
could choose the hash of something else that binds a key of his, such as the claims of an RA-TLS certificate.
The challenge enters through the statement alone, as 64 hexadecimal digits; the purpose tag and the shape of
the statement keep a quote over it apart from every other use of quotes: a DER public key begins with 0x30, a
CBOR claims map with 0xa0 to 0xbf, a statement with ``{"keyset_digest":"sha256:``.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from adyton_protocol.digests import Digest, as_digest, jcs
from adyton_protocol.errors import LocalProtocolError

PURPOSE: Final = "aci.report_data.v1"
NONCE_BYTES: Final = 32
NONCE_CHARS: Final = 2 * NONCE_BYTES
NONCE_PATTERN: Final = re.compile(r"[0-9a-f]{64}")
REPORT_DATA_BYTES: Final = 64


def as_nonce(text: str) -> str:
    """Return a challenge, checked: 32 bytes as exactly 64 lower-case hexadecimal digits.

    Args:
        text: As it stands in the query of the attestation request; attacker-controlled in the enclave, which
            maps the error to status 400.

    Raises:
        LocalProtocolError: Anything else.
    """
    if NONCE_PATTERN.fullmatch(text) is None:
        raise LocalProtocolError("a nonce is 64 lower-case hexadecimal digits")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a quote binds.

    Attributes:
        keyset_digest: Digest of the keyset.
        nonce: The challenge as 64 lower-case hexadecimal digits, or None, which proves no freshness.
    """

    keyset_digest: Digest
    nonce: str | None

    def __post_init__(self) -> None:
        """Refuse anything that could make the statement read as something else.

        Raises:
            LocalProtocolError: The digest or the nonce is not of its exact form.
        """
        as_digest(self.keyset_digest)
        if self.nonce is not None:
            as_nonce(self.nonce)

    def to_bytes(self) -> bytes:
        """Return the exact statement bytes; the verifier builds them itself and never parses them."""
        return jcs({"keyset_digest": self.keyset_digest, "nonce": self.nonce, "purpose": PURPOSE})

    def digest(self) -> bytes:
        """Return the SHA-256 of the statement, 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    def report_data(self) -> bytes:
        """Return the 64 bytes for the report-data field: the digest, then 32 zero bytes."""
        return self.digest().ljust(REPORT_DATA_BYTES, b"\x00")


def report_data(keyset_digest: Digest, nonce: str | None) -> bytes:
    """Return the 64 bytes of report data that bind a keyset and a challenge.

    Args:
        keyset_digest: Digest of the keyset.
        nonce: The challenge, 64 lower-case hexadecimal digits, or None.

    Raises:
        LocalProtocolError: The digest or the nonce is not of its exact form.
    """
    return Statement(keyset_digest=keyset_digest, nonce=nonce).report_data()
