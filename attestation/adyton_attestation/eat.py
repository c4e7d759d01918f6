# SPDX-License-Identifier: Apache-2.0
"""The attestation result as a signed token for third parties: EAT (RFC 9711) as JWT, signed with Ed25519.

Whoever appraised an enclave says so to somebody who did not: what was found, check by check, under which policy, until
when. The token is the word of whoever holds the signing key, and worth what that word is worth; it is no evidence, and
no channel comes out of it. The vocabulary is that of EAR and AR4SI (drafts of the RATS working group): trust tiers
``affirming``, ``warning``, ``contraindicated`` and ``none``, and a vector of claims behind the tier.

What a simulated enclave gets is ``none``, whatever was checked.

One algorithm (``EdDSA`` with Ed25519, RFC 8037), one header, canonical base64url, strict JSON: a token has one spelling
for its reader, who never asks the token which key or algorithm to use.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, cast, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from adyton_attestation.checks import Check, CheckName
from adyton_attestation.result import ResultFields
from adyton_protocol.digests import jcs
from adyton_protocol.errors import AppraisalError, LocalProtocolError, MalformedEvidence
from adyton_protocol.report import AttestationReport
from adyton_protocol.strict_json import JsonObject, JsonValue, Members, parse_json

PROFILE: Final = "urn:adyton:eat:attestation-result:1"
MEDIA_TYPE: Final = "application/eat+jwt"
SUBMODULE: Final = "enclave"
CHECKS_CLAIM: Final = "urn:adyton:checks"
RESULT_CLAIM: Final = "urn:adyton:result"
MAX_TOKEN_BYTES: Final = 128 * 1024
MAX_SKEW_S: Final = 60
"""How far in the future a token may have been issued by the reader's clock, in seconds."""

Tier: TypeAlias = Literal["none", "affirming", "warning", "contraindicated"]
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)

_ALGORITHM: Final = "EdDSA"
_TYPE: Final = "eat+jwt"
_JSON_CONTENT_FORMAT: Final = 50
"""CoAP content format of ``application/json`` (RFC 7252 section 12.3), which ``measurements`` asks for."""
_MIN_NONCE_CHARS: Final = 8
_MAX_NONCE_CHARS: Final = 88
_MAX_TIME_S: Final = 253_402_300_799
_WARNING: Final = 32
_CONTRAINDICATED: Final = 96

_AFFIRMING_VALUE: Final = 2
"""In every category of AR4SI the plainest good word: trustworthy, approved, genuine, encrypted."""

_CATEGORIES: Final[Mapping[str, tuple[frozenset[CheckName], int, int]]] = {
    # Category: the checks behind it, its value when one of them failed, and when one was not made.
    "instance-identity": (frozenset({CheckName.PLATFORM}), 97, 0),
    "configuration": (frozenset({CheckName.CONFIGURATION, CheckName.MODELS}), 96, 32),
    "executables": (frozenset({CheckName.ENCLAVE_IDENTITY, CheckName.KEY_BINDING}), 96, 33),
    "hardware": (
        frozenset(
            {
                CheckName.PCK_CHAIN,
                CheckName.NOT_REVOKED,
                CheckName.QUOTE_SIGNATURES,
                CheckName.DCAP_VERIFICATION,
                CheckName.TCB_STATUS,
                CheckName.ADVISORIES,
            }
        ),
        96,
        97,
    ),
    "runtime-opaque": (frozenset({CheckName.DEBUG_DISABLED, CheckName.ATTRIBUTES}), 96, 96),
}
_UNSAFE_HARDWARE: Final = 32
"""AR4SI: genuine hardware with known vulnerabilities that the policy lives with."""


class Appraised(ResultFields, Protocol):
    """What a token is made of: either result type."""

    @property
    def tee_type(self) -> str:
        """``sgx`` or ``simulated``."""
        ...

    @property
    def report(self) -> AttestationReport:
        """The evidence."""
        ...

    def to_json(self) -> JsonObject:
        """Return the machine-readable record."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedResult:
    """A token whose signature, times and nonce held.

    Attributes:
        tier: The overall verdict of whoever signed.
        vector: AR4SI claims by category; below 32 they affirm, from 32 they warn, from 96 they contraindicate.
        checks: Every check with its verdict.
        policy_ids: Digests of the policies that were applied.
        nonce: The top-level nonce.
        challenge: The challenge that the evidence answered.
        issued_at_s: Unix time.
        expires_at_s: Unix time.
        measurements: What was measured.
        result: The record of the appraisal.
    """

    tier: Tier
    vector: Mapping[str, int]
    checks: tuple[Check, ...]
    policy_ids: tuple[str, ...]
    nonce: str
    challenge: str
    issued_at_s: int
    expires_at_s: int
    measurements: JsonObject
    result: JsonObject

    def to_json(self) -> JsonObject:
        """Return the machine-readable form of the reader's verdict."""
        return {
            "tier": self.tier,
            "trustworthiness_vector": dict(self.vector),
            "checks": [check.to_json() for check in self.checks],
            "policies": list(self.policy_ids),
            "nonce": self.nonce,
            "challenge": self.challenge,
            "issued_at": self.issued_at_s,
            "expires_at": self.expires_at_s,
            "measurements": self.measurements,
            "result": self.result,
        }


def key_id(key: Ed25519PublicKey) -> str:
    """Return the id that tokens name a key by: the first 16 bytes of the SHA-256 of its 32 bytes, hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:16].hex()


def trust_vector(checks: Iterable[Check], *, simulated: bool, tcb_status: str) -> dict[str, int]:
    """Return the AR4SI claims that follow from the checks of one appraisal.

    Args:
        checks: Every verdict.
        simulated: Whether a simulated enclave was appraised, of which nothing is claimed.
        tcb_status: The platform's; anything but ``UpToDate`` is hardware with known vulnerabilities.
    """
    if simulated:
        return dict.fromkeys(_CATEGORIES, 0)
    verdicts = {check.name: check.verdict for check in checks}
    vector = {}
    for category, (behind, failed, skipped) in _CATEGORIES.items():
        found = {verdicts.get(name.value, "fail") for name in behind}
        vector[category] = failed if "fail" in found else skipped if "skip" in found else _AFFIRMING_VALUE
    if vector["hardware"] == _AFFIRMING_VALUE and tcb_status != "UpToDate":
        vector["hardware"] = _UNSAFE_HARDWARE
    # SECURITY: a failed or missing check that no category counts still contraindicates the whole.
    if any(verdicts.get(name.value, "fail") == "fail" for name in CheckName):
        vector["executables"] = _CONTRAINDICATED
    return vector


def tier_of(vector: Mapping[str, int]) -> Tier:
    """Return the tier of the worst claim (AR4SI section 3.2); ``none`` when nothing is claimed."""
    worst = max(vector.values(), default=0)
    if worst >= _CONTRAINDICATED:
        return "contraindicated"
    if worst >= _WARNING:
        return "warning"
    return "affirming" if worst >= _AFFIRMING_VALUE else "none"


def sign_result(
    result: Appraised, key: Ed25519PrivateKey, *, now_s: int, build: str, nonce: str | None = None
) -> str:
    """Make the token for an appraisal that passed.

    It expires with the keys or with the first of the endorsements, whichever is sooner.

    Args:
        result: The appraisal.
        key: Of whoever vouches for it.
        now_s: Unix time.
        build: Name and version of the software that appraised.
        nonce: What the third party wants to see, 8 to 88 characters; the challenge of the evidence when it wants
            nothing.

    Raises:
        LocalProtocolError: The nonce is too short or too long, or what was appraised has expired.
    """
    challenge = result.report.nonce
    if challenge is None:
        raise LocalProtocolError("a result without a challenge proves no freshness")
    stated = challenge if nonce is None else nonce
    if not _MIN_NONCE_CHARS <= len(stated) <= _MAX_NONCE_CHARS:
        raise LocalProtocolError(f"a nonce has {_MIN_NONCE_CHARS} to {_MAX_NONCE_CHARS} characters")
    expires_s = min(result.keyset.not_after, result.claims.earliest_expiration_s)
    if expires_s <= now_s:
        raise LocalProtocolError("what was appraised has expired")
    vector = trust_vector(result.checks, simulated=result.tee_type != "sgx", tcb_status=result.claims.status)
    record = {name: value for name, value in result.to_json().items() if name not in {"checks", "marks"}}
    claims: JsonObject = {
        "eat_profile": PROFILE,
        "eat_nonce": stated,
        "iat": now_s,
        "exp": expires_s,
        "ear_verifier_id": {"developer": "urn:adyton", "build": build},
        "ear_status": tier_of(vector),
        "measurements": [[_JSON_CONTENT_FORMAT, _b64(jcs(_measurements(result)))]],
        "submods": {
            SUBMODULE: {
                "ear_status": tier_of(vector),
                "ear_trustworthiness_vector": cast("JsonObject", dict(vector)),
                "ear_appraisal_policy_ids": [result.policy_digest],
                "eat_nonce": challenge,
                CHECKS_CLAIM: [check.to_json() for check in result.checks],
                RESULT_CLAIM: record,
            }
        },
    }
    signed = f"{_b64(jcs(_header(key.public_key())))}.{_b64(jcs(claims))}"
    return f"{signed}.{_b64(key.sign(signed.encode('ascii')))}"


def verify_result(
    token: bytes, key: Ed25519PublicKey, *, now_s: int, nonce: str | None = None
) -> VerifiedResult:
    """Verify a token for somebody who trusts the holder of a key.

    Steps:

    1. Form: three parts of canonical base64url, and exactly the header that our signer writes for this key.
    2. Signature, by the key that the caller names.
    3. Claims: strict JSON of our profile; the tier follows from the vector.
    4. Time: issued, and not expired.
    5. Nonce, if the caller wants one.

    A verified token may still say ``warning``, ``contraindicated`` or ``none``; the tier is for the caller to judge.

    Args:
        token: Attacker-controlled bytes.
        key: Whose word counts.
        now_s: Unix time.
        nonce: What the caller asked to be stated.

    Raises:
        MalformedEvidence: Not a token of this profile.
        AppraisalError: Another signature, another time or another nonce; ``check`` says which.
    """
    signed, header, payload, signature = _split(token)
    if header != jcs(_header(key)):
        raise AppraisalError(
            "token-key", expected=f"a token signed by key {key_id(key)}", actual="another header"
        )
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        raise AppraisalError(
            "token-signature", expected="a signature of the trusted key", actual="another"
        ) from None
    found = _read(payload)
    if not found.issued_at_s - MAX_SKEW_S <= now_s < found.expires_at_s:
        raise AppraisalError(
            "token-time",
            expected=f"a token in force at {now_s}",
            actual=f"one from {found.issued_at_s} to {found.expires_at_s}",
        )
    if nonce is not None and nonce != found.nonce:
        raise AppraisalError("token-nonce", expected="the nonce that was asked for", actual="another")
    return found


def _header(key: Ed25519PublicKey) -> JsonObject:
    return {"alg": _ALGORITHM, "kid": key_id(key), "typ": _TYPE}


def _measurements(result: Appraised) -> JsonObject:
    report = result.quote.report
    return {
        "mr_enclave": report.mr_enclave.hex(),
        "mr_signer": report.mr_signer.hex(),
        "isv_prod_id": report.isv_prod_id,
        "isv_svn": report.isv_svn,
        "configuration_digest": result.keyset.extension.configuration_digest,
        "models": [model.to_json() for model in result.keyset.extension.models],
    }


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unb64(text: bytes, what: str) -> bytes:
    try:
        octets = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as cause:
        raise MalformedEvidence(f"attestation result: {what} is not base64url") from cause
    # SECURITY: padding and unused bits would give one token many spellings.
    if _b64(octets).encode("ascii") != text:
        raise MalformedEvidence(f"attestation result: {what} is not in its one base64url spelling")
    return octets


def _split(token: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    if len(token) > MAX_TOKEN_BYTES:
        raise MalformedEvidence(f"attestation result: longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(b".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise MalformedEvidence("attestation result: not a compact JWS of three parts")
    header, payload, signature = (
        _unb64(part, what) for part, what in zip(parts, ("header", "payload", "signature"), strict=True)
    )
    return b".".join(parts[:2]), header, payload, signature


def _read(payload: bytes) -> VerifiedResult:
    document = parse_json(
        payload, max_bytes=MAX_TOKEN_BYTES, what="attestation result", error=MalformedEvidence
    )
    claims = Members(document, "claims", MalformedEvidence)
    if claims.raw("eat_profile") != PROFILE:
        claims.refuse("eat_profile", f"not {PROFILE}")
    enclave = claims.object("submods").object(SUBMODULE)
    vector = {
        name: enclave.object("ear_trustworthiness_vector").integer(name, minimum=-128, maximum=127)
        for name in _CATEGORIES
    }
    tier = tier_of(vector)
    for place in (claims, enclave):
        if place.raw("ear_status") != tier:
            place.refuse("ear_status", "not the tier of the worst claim")
    return VerifiedResult(
        tier=tier,
        vector=vector,
        checks=tuple(_check(item) for item in enclave.objects(CHECKS_CLAIM, max_items=64)),
        policy_ids=tuple(map(str, enclave.array("ear_appraisal_policy_ids", max_items=8))),
        nonce=claims.text("eat_nonce", min_chars=_MIN_NONCE_CHARS, max_chars=_MAX_NONCE_CHARS),
        challenge=enclave.text("eat_nonce", min_chars=_MIN_NONCE_CHARS, max_chars=_MAX_NONCE_CHARS),
        issued_at_s=claims.integer("iat", minimum=0, maximum=_MAX_TIME_S),
        expires_at_s=claims.integer("exp", minimum=0, maximum=_MAX_TIME_S),
        measurements=_measured(claims),
        result=cast("JsonObject", dict(enclave.object(RESULT_CLAIM).items())),
    )


def _measured(claims: Members) -> JsonObject:
    match claims.array("measurements", max_items=1):
        case [[50, str() as encoded]] if encoded.isascii():
            octets = _unb64(encoded.encode("ascii"), "measurements")
        case _:
            return claims.refuse("measurements", "not one JSON document")
    document: JsonValue = parse_json(
        octets, max_bytes=MAX_TOKEN_BYTES, what="measurements", error=MalformedEvidence
    )
    return cast("JsonObject", dict(Members(document, "measurements", MalformedEvidence).items()))


def _check(item: Members) -> Check:
    verdict = item.raw("verdict")
    if verdict not in {"pass", "fail", "skip"}:
        item.refuse("verdict", "neither pass nor fail nor skip")
    return Check(
        number=item.integer("number", minimum=1, maximum=1000),
        name=item.text("name", max_chars=64),
        verdict=cast("Literal['pass', 'fail', 'skip']", verdict),
        detail=item.text("detail", max_chars=4096),
    )
