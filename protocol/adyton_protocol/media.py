# SPDX-License-Identifier: Apache-2.0
"""Everything of the protocol that the untrusted host may see: media types, paths and size limits.

The host imports this module and :mod:`adyton_protocol.errors`, and nothing else of the protocol.
"""

import re
from typing import Final

# --- RFC 9458 section 6, draft-ietf-ohai-chunked-ohttp section 7 ------------------------------------
OHTTP_KEYS: Final = "application/ohttp-keys"
OHTTP_REQUEST: Final = "message/ohttp-req"
OHTTP_RESPONSE: Final = "message/ohttp-res"
OHTTP_CHUNKED_REQUEST: Final = "message/ohttp-chunked-req"
OHTTP_CHUNKED_RESPONSE: Final = "message/ohttp-chunked-res"
PROBLEM_JSON: Final = "application/problem+json"

# --- Encodings of the attestation report ------------------------------------------------------------
REPORT_JSON: Final = "application/json"
CMW_JSON: Final = "application/cmw+json"
"""RFC 9999; the same evidence as a collection of conceptual messages."""
CMW_CBOR: Final = "application/cmw+cbor"
EVIDENCE_TYPES: Final = (REPORT_JSON, CMW_JSON, CMW_CBOR)
"""In order of preference, where a client does not care."""

PROBLEM_OHTTP_KEY: Final = "https://iana.org/assignments/http-problem-types#ohttp-key"
"""RFC 9458 section 7.3: sealed to an unknown or expired key; attest again and reseal."""
PROBLEM_REPLAY: Final = "urn:adyton:problem:replayed-request"
"""The encapsulated key was accepted before; sealed requests are single-use."""
PROBLEM_PLAINTEXT: Final = "urn:adyton:problem:plaintext-refused"
"""An API call arrived in the clear; the appliance only answers sealed requests."""
PROBLEM_BUSY: Final = "urn:adyton:problem:busy"
"""The host's concurrency limit is reached; the request never reached the enclave."""
PROBLEM_UNAVAILABLE: Final = "urn:adyton:problem:enclave-unavailable"
"""No enclave is ready to take the request."""
PROBLEM_TOO_LARGE: Final = "urn:adyton:problem:too-large"
"""The sealed request exceeds the size limit."""
PROBLEM_NOT_ACCEPTABLE: Final = "urn:adyton:problem:not-acceptable"
"""The evidence exists in none of the media types that the request accepts."""
PROBLEM_MALFORMED: Final = "urn:adyton:problem:malformed"
"""The sealed request cannot be decapsulated."""

# --- Paths (RFC 9540 section 4 for the gateway) -----------------------------------------------------
GATEWAY_PATH: Final = "/.well-known/ohttp-gateway"
ATTESTATION_PATH: Final = "/v1/aci/attestation"
ENDORSEMENTS_PATH: Final = "/adyton/endorsements"
"""The host's cache of endorsements (``QuoteCollateralV3`` JSON); untrusted like everything it serves."""
RELEASES_PATH: Final = "/.well-known/adyton/releases"
"""The release file (signed reference values) that the operator put there; untrusted, and verified by the client."""

# --- What the host may suggest ---------------------------------------------------------------------
TENANT_HEADER: Final = "adyton-tenant"
"""Outer request header by which the host tells the enclave's scheduler which requests share a turn: an opaque tag,
never a credential or an address. It can change when a request is computed, and nothing else."""
MAX_TENANT_CHARS: Final = 64
"""Longest tag; letters, digits, ``-`` and ``_``. Whatever else stands there counts as no tag."""

# --- Limits, in bytes -------------------------------------------------------------------------------
MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Largest sealed request that relay and gateway accept."""
MAX_CHUNK_BYTES: Final = 1 << 20
"""Largest sealed chunk that either end buffers."""
MAX_REPORT_BYTES: Final = 256 * 1024
"""Largest attestation report that a client reads."""
MAX_ENDORSEMENTS_BYTES: Final = 1 << 20
"""Largest endorsement document that a client reads."""
MAX_RELEASES_BYTES: Final = 512 * 1024
"""Largest release file that a client reads."""

ENCAPSULATED_HEADER_BYTES: Final = 7
"""Key id (1), KEM id (2), KDF id (2), AEAD id (2): RFC 9458 section 4.1. The first byte is the key id, by
which the host picks the enclave."""


# --- Choosing an encoding (RFC 9110 section 12.5.1) --------------------------------------------------

_MAX_RANGES: Final = 32
_QUALITY: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def evidence_type(accept: str) -> str | None:
    """Choose the encoding of the attestation report.

    Args:
        accept: Value of the ``Accept`` field, attacker-controlled; empty when there is none.

    Returns:
        One of :data:`EVIDENCE_TYPES`, or None when none of them is acceptable. Ranges that are malformed or beyond
        the first 32 count for nothing; parameters other than ``q`` are not looked at.
    """
    if not accept.strip():
        return REPORT_JSON
    ranges = [found for part in accept.split(",")[:_MAX_RANGES] if (found := _range(part)) is not None]
    chosen: str | None = None
    best = 0.0
    for offered in EVIDENCE_TYPES:
        # The most specific range decides, whatever its quality.
        names = (offered, f"{offered.partition('/')[0]}/*", "*/*")
        quality = next((q for name in names for found, q in ranges if found == name), 0.0)
        if quality > best:
            chosen, best = offered, quality
    return chosen


def _range(part: str) -> tuple[str, float] | None:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return (name, float(value)) if _QUALITY.fullmatch(value.strip()) else None
    return name, 1.0
