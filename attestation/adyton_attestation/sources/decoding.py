# SPDX-License-Identifier: Apache-2.0
"""From what a certification service sends to the parts of ``QuoteCollateralV3``; parses, trusts nothing.

Signed documents are cut out of their envelope byte for byte, because the signature is over these bytes. Chains come
percent-encoded in a header. Revocation lists come as DER from Intel, and as DER or in hexadecimal from caching
services, depending on their age; PEM is understood, too. Source: Intel, *Provisioning Certification Service for ECDSA
Attestation*, version 4.
"""

import binascii
import json
import re
from typing import Final
from urllib.parse import unquote_to_bytes

import httpx

from adyton_attestation.certificates import MAX_CHAIN_BYTES, parse_chain
from adyton_protocol.errors import EndorsementError

_MAX_ENCODED_CHAIN: Final = 3 * MAX_CHAIN_BYTES
_PERCENT: Final = re.compile(r"(?:[!-$&-~ ]|%[0-9A-Fa-f]{2})+")
_PEM_CRL: Final = re.compile(
    rb"\s*-----BEGIN X509 CRL-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END X509 CRL-----\s*"
)
_SIGNATURE: Final = re.compile(r"[0-9A-Fa-f]{128}")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DER_SEQUENCE: Final = b"\x30"


def issuer_chain(headers: httpx.Headers, *names: str) -> str:
    """Return the PEM chain of a header.

    Args:
        headers: Attacker-controlled.
        names: The header's name, and older ones. Exactly one header of these must be there, once.

    Raises:
        EndorsementError: None, several, or one that does not hold a chain.
    """
    found = [value for name in names for value in headers.get_list(name)]
    if len(found) != 1:
        raise EndorsementError(f"header {names[0]}: {'missing' if not found else 'there more than once'}")
    encoded = found[0]
    if len(encoded) > _MAX_ENCODED_CHAIN or _PERCENT.fullmatch(encoded) is None:
        raise EndorsementError(f"header {names[0]}: not a percent-encoded chain")
    pem = unquote_to_bytes(encoded)
    parse_chain(pem, f"header {names[0]}")
    return pem.decode("ascii")


def signed_document(body: bytes, name: str) -> tuple[str, str]:
    """Cut the signed document and its signature out of ``{"<name>": {...}, "signature": "<hex>"}``.

    Args:
        body: Attacker-controlled.
        name: ``tcbInfo`` or ``enclaveIdentity``.

    Returns:
        The document's exact text, and the signature as 128 hexadecimal digits.

    Raises:
        EndorsementError: Not of this form.
    """
    try:
        members = _members(body.decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise EndorsementError(f"{name}: not a JSON object, or cut short") from cause
    if members.keys() != {name, "signature"}:
        raise EndorsementError(f"{name}: not exactly a document and its signature")
    text, signature = members[name], members["signature"].strip('"')
    if not text.startswith("{") or _SIGNATURE.fullmatch(signature) is None:
        raise EndorsementError(f"{name}: not an object with a signature of 64 bytes")
    return text, signature


def revocation_list(body: bytes, what: str) -> bytes:
    """Return the DER bytes of a revocation list in whichever of the three encodings it came.

    Raises:
        EndorsementError: In none of them.
    """
    # The tag of a DER sequence is the character 0. In hexadecimal, the same sequence begins with the character 3.
    if body.startswith(_DER_SEQUENCE):
        return body
    pem = _PEM_CRL.fullmatch(body)
    try:
        return binascii.a2b_base64(pem[1]) if pem else bytes.fromhex(body.decode("ascii").strip())
    except ValueError as cause:
        raise EndorsementError(f"{what}: neither DER nor hexadecimal nor PEM") from cause


def _members(text: str) -> dict[str, str]:
    """Return the members of a JSON object with the exact text of each value.

    Raises:
        ValueError: Not one object and nothing else, or a member twice.
    """
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    at = _expect(text, 0, "{")
    while True:
        name, at = decoder.raw_decode(text, _skip(text, at))
        start = _skip(text, _expect(text, at, ":"))
        _, at = decoder.raw_decode(text, start)
        if not isinstance(name, str) or name in members:
            raise ValueError("a member name twice, or none")
        members[name] = text[start:at]
        at = _skip(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    if _skip(text, _expect(text, at, "}")) != len(text):
        raise ValueError("more than one object")
    return members


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _expect(text: str, at: int, character: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != character:
        raise ValueError("not an object")
    return at + 1
