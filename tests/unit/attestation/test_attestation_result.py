# SPDX-License-Identifier: Apache-2.0
"""Attestation results for third parties: what a token says, and every way in which it does not hold."""

import base64
import dataclasses
import json
import warnings
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from unit.attestation.conftest import MODEL, MR_ENCLAVE, NOW_S, Lab

from adyton_attestation import eat
from adyton_attestation.checks import Check, CheckName
from adyton_attestation.eat import key_id, sign_result, tier_of, trust_vector, verify_result
from adyton_attestation.policy import NO_EXPIRY_S, Relaxation
from adyton_attestation.result import AttestationResult
from adyton_attestation.simulation import SimulatedAttestationWarning, SimulatedResult
from adyton_protocol.digests import jcs
from adyton_protocol.errors import AppraisalError, LocalProtocolError, MalformedEvidence

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
BUILD = "adyton 0"


def as_real(result: SimulatedResult) -> AttestationResult:
    """The same facts in the real result type, which no simulated verifier makes."""
    names = [field.name for field in dataclasses.fields(SimulatedResult) if field.init]
    return AttestationResult(**{name: getattr(result, name) for name in names})


@pytest.fixture(scope="module")
def accepted(lab: Lab) -> AttestationResult:
    """An appraisal that passed without relaxation."""
    return as_real(lab.appraise())


@pytest.fixture(scope="module")
def token(accepted: AttestationResult) -> bytes:
    """Its token."""
    return sign_result(accepted, KEY, now_s=NOW_S, build=BUILD).encode()


def b64(data: bytes) -> str:
    """Base64url as JWS writes it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def payload(token: bytes) -> Any:
    """What a token says, unchecked."""
    part = token.split(b".")[1]
    return json.loads(base64.urlsafe_b64decode(part + b"=="))


def resigned(claims: Any, header: Any = None) -> bytes:
    """A token of the same signer with other claims, or another header."""
    head = {"alg": "EdDSA", "kid": key_id(PUBLIC), "typ": "eat+jwt"} if header is None else header
    signed = f"{b64(jcs(head))}.{b64(jcs(claims))}"
    return f"{signed}.{b64(KEY.sign(signed.encode()))}".encode()


def check(token: bytes, **options: Any) -> eat.VerifiedResult:
    """Verify as the third party does."""
    return verify_result(token, options.pop("key", PUBLIC), now_s=options.pop("now_s", NOW_S), **options)


def test_the_signature_is_that_of_rfc_8037() -> None:
    """Appendix A.4: our signing input and encoding reproduce the published compact JWS."""
    key = Ed25519PrivateKey.from_private_bytes(
        base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    )
    signed = b64(b'{"alg":"EdDSA"}') + "." + b64(b"Example of Ed25519 signing")
    assert signed == "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    assert b64(key.sign(signed.encode())) == (
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )


def test_a_token_says_what_was_found(accepted: AttestationResult, token: bytes) -> None:
    """Profile, times, nonce, measurements, policy and every check arrive at the third party."""
    claims = payload(token)
    assert claims["eat_profile"] == "urn:adyton:eat:attestation-result:1"
    assert (claims["iat"], claims["exp"]) == (NOW_S, accepted.keyset.not_after)
    assert claims["measurements"][0][0] == 50, "application/json among CoAP content formats"
    found = check(token)
    assert found.tier == claims["ear_status"] == "affirming"
    assert found.checks == accepted.checks
    assert found.policy_ids == (accepted.policy_digest,)
    assert found.nonce == found.challenge == accepted.report.nonce
    assert found.measurements["mr_enclave"] == MR_ENCLAVE.hex()
    assert found.measurements["models"] == [MODEL.to_json()]
    assert found.result["keyset_digest"] == accepted.keyset.digest()
    assert found.to_json()["tier"] == "affirming"


def test_a_simulated_enclave_gets_no_good_word(lab: Lab) -> None:
    """Whatever was checked: nothing is claimed about it, so that no reader of tiers can take it for real."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedAttestationWarning)
        found = check(sign_result(lab.appraise(), KEY, now_s=NOW_S, build=BUILD).encode())
    assert found.tier == "none"
    assert set(found.vector.values()) == {0}
    assert found.result["trust_domain"] == "simulated"


def test_what_the_policy_lives_with_is_a_warning(lab: Lab, accepted: AttestationResult) -> None:
    """A check that is not made, and hardware that is not up to date, never come out as affirming."""
    relaxation = Relaxation(check=CheckName.MODELS, reason="test", expires_s=NO_EXPIRY_S)
    relaxed = as_real(lab.appraise(policy=lab.policy(relaxations=(relaxation,), models=())))
    assert check(sign_result(relaxed, KEY, now_s=NOW_S, build=BUILD).encode()).tier == "warning"
    claims = dataclasses.replace(accepted.claims, status="SWHardeningNeeded")
    hardening = dataclasses.replace(accepted, claims=claims)
    found = check(sign_result(hardening, KEY, now_s=NOW_S, build=BUILD).encode())
    assert (found.tier, found.vector["hardware"]) == ("warning", 32)


@pytest.mark.parametrize("name", list(CheckName))
@pytest.mark.parametrize("verdict", ["fail", None])
def test_one_failed_or_missing_check_contraindicates(
    accepted: AttestationResult, name: CheckName, verdict: Any
) -> None:
    """Every check counts, whether a category stands for it or not, and so does its absence."""
    checks = [item for item in accepted.checks if item.name != name.value]
    if verdict is not None:
        checks.append(Check(number=1, name=name.value, verdict=verdict, detail="x"))
    assert tier_of(trust_vector(checks, simulated=False, tcb_status="UpToDate")) == "contraindicated"


def test_no_claim_is_no_good_claim() -> None:
    """Tiers are those of the worst claim; without any there is none."""
    assert [tier_of({"a": value}) for value in (-1, 0, 1, 2, 31, 32, 95, 96, 127)] == [
        "none", "none", "none", "affirming", "affirming", "warning", "warning", "contraindicated", "contraindicated",
    ]  # fmt: skip
    assert tier_of({}) == "none"
    assert tier_of({"a": 2, "b": 96}) == "contraindicated"


def test_the_third_partys_nonce_is_stated_and_checked(accepted: AttestationResult) -> None:
    """Whoever asked for a nonce sees a token made for him; the evidence's own challenge stands beside it."""
    token = sign_result(accepted, KEY, now_s=NOW_S, build=BUILD, nonce="for the auditor").encode()
    found = check(token, nonce="for the auditor")
    assert (found.nonce, found.challenge) == ("for the auditor", accepted.report.nonce)
    with pytest.raises(AppraisalError) as caught:
        check(token, nonce="for another")
    assert caught.value.check == "token-nonce"


@pytest.mark.parametrize(
    ("now_s", "holds"), [(-61, False), (-60, True), (0, True), (899, True), (900, False)]
)
def test_a_token_holds_from_its_issue_to_the_end_of_the_keys(token: bytes, now_s: int, holds: bool) -> None:
    """With a minute for clocks that differ, and not a second beyond the end."""
    if holds:
        assert check(token, now_s=NOW_S + now_s)
        return
    with pytest.raises(AppraisalError) as caught:
        check(token, now_s=NOW_S + now_s)
    assert caught.value.check == "token-time"


def test_another_key_does_not_do(token: bytes) -> None:
    """Neither as the reader's key, nor put into the header by somebody else."""
    other = Ed25519PrivateKey.generate()
    with pytest.raises(AppraisalError) as caught:
        check(token, key=other.public_key())
    assert caught.value.check == "token-key"
    signed = token.rsplit(b".", 1)[0]
    with pytest.raises(AppraisalError) as caught:
        check(signed + b"." + b64(other.sign(signed)).encode())
    assert caught.value.check == "token-signature"


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "Ed25519"},
        {"typ": "JWT"},
        {"kid": "x"},
        {"jwk": {}},
        {"crit": ["x"]},
    ],
    ids=str,
)
def test_a_token_has_one_header(token: bytes, changes: dict[str, Any]) -> None:
    """The token is never asked which algorithm or key to use."""
    header = {"alg": "EdDSA", "kid": key_id(PUBLIC), "typ": "eat+jwt"} | changes
    with pytest.raises(AppraisalError) as caught:
        check(resigned(payload(token), header))
    assert caught.value.check == "token-key"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("eat_profile",), "urn:other"), (("eat_nonce",), "short"), (("eat_nonce",), None), (("iat",), -1),
        (("exp",), "9"),
        (("ear_status",), "affirming!"), (("submods",), {}), (("submods", "enclave", "ear_status"), "none"),
        (("submods", "enclave", "ear_trustworthiness_vector", "hardware"), 96),
        (("submods", "enclave", "ear_trustworthiness_vector", "hardware"), 128),
        (("submods", "enclave", "ear_trustworthiness_vector"), {}), (("measurements",), []),
        (("measurements",), [[50, "e30="]]), (("measurements",), [[60, "e30"]]), (("measurements",), [[50, "bnVsbA"]]),
        (("submods", "enclave", "urn:adyton:checks"), [{"number": 1, "name": "x", "verdict": "good", "detail": "x"}]),
        (("submods", "enclave", "urn:adyton:result"), []),
    ],
)  # fmt: skip
def test_claims_of_another_form_are_refused_though_signed(token: bytes, path: Any, value: Any) -> None:
    """The profile is strict, and no tier is better than the worst claim behind it."""
    claims = payload(token)
    place = claims
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(MalformedEvidence):
        check(resigned(claims))


def test_every_flipped_bit_is_noticed(token: bytes) -> None:
    """Of header, payload and signature; no byte is without meaning."""
    for position in range(0, len(token), 11):
        changed = bytearray(token)
        changed[position] ^= 1
        with pytest.raises((AppraisalError, MalformedEvidence)):
            check(bytes(changed))


@given(st.binary(max_size=120) | st.lists(st.binary(max_size=30).map(b64), min_size=3, max_size=3).map(
    lambda parts: ".".join(parts).encode()
))  # fmt: skip
def test_any_bytes_are_refused(data: bytes) -> None:
    """No input makes the reader fail otherwise."""
    with pytest.raises((AppraisalError, MalformedEvidence)):
        check(data)


@pytest.mark.parametrize("change", [lambda t: t + b"=", lambda t: t + b".", lambda t: b"." + t, lambda t: t + b"\n",
                                    lambda t: t.replace(b".", b"..", 1), lambda t: t * 60])  # fmt: skip
def test_a_token_has_one_spelling(token: bytes, change: Any) -> None:
    """Padding, white space and further parts are refused."""
    with pytest.raises((AppraisalError, MalformedEvidence)):
        check(change(token))


def test_what_has_expired_is_not_signed(accepted: AttestationResult) -> None:
    """Nor what proves no freshness, nor under a nonce that no reader takes."""
    with pytest.raises(LocalProtocolError):
        sign_result(accepted, KEY, now_s=accepted.keyset.not_after, build=BUILD)
    with pytest.raises(LocalProtocolError):
        sign_result(accepted, KEY, now_s=NOW_S, build=BUILD, nonce="short")
    unchallenged = dataclasses.replace(accepted, report=dataclasses.replace(accepted.report, nonce=None))
    with pytest.raises(LocalProtocolError):
        sign_result(unchallenged, KEY, now_s=NOW_S, build=BUILD)
