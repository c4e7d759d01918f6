# SPDX-License-Identifier: Apache-2.0
"""Everything of the protocol that the untrusted host may see: media types, paths and size limits.

The host imports this module and :mod:`adyton_protocol.errors`, and nothing else of the protocol.
"""

from typing import Final

# --- RFC 9458 section 6, draft-ietf-ohai-chunked-ohttp section 7 ------------------------------------
OHTTP_KEYS: Final = "application/ohttp-keys"
OHTTP_REQUEST: Final = "message/ohttp-req"
OHTTP_RESPONSE: Final = "message/ohttp-res"
OHTTP_CHUNKED_REQUEST: Final = "message/ohttp-chunked-req"
OHTTP_CHUNKED_RESPONSE: Final = "message/ohttp-chunked-res"
PROBLEM_JSON: Final = "application/problem+json"

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
