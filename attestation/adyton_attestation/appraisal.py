# SPDX-License-Identifier: Apache-2.0
"""The appraisal: 28 numbered checks, made in order, each with a verdict; the first failure is raised.

1 is the kind of evidence; 2 to 4 the quote's form; 5 to 12 whether it is genuine (``genuineness``); 13 to 23
whether that is good enough (``acceptability``); 24 to 28 whether it speaks for these keys, now. Every check that
can be made is made and reported, also after one has failed. ``docs/appraisal.md`` explains each.

No I/O and no clock: evidence, endorsements, policy, marks, challenge and time are arguments.
"""

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adyton_attestation import guard
from adyton_attestation.acceptability import (
    PLATFORM_CHECKS,
    IdentityAppraisal,
    PlatformAppraisal,
    check_debug,
    relaxed,
)
from adyton_attestation.certificates import TrustAnchor
from adyton_attestation.checks import Check, CheckName, Ledger, Refusal
from adyton_attestation.dcap import DcapClaims
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.genuineness import check_genuineness
from adyton_attestation.marks import HighWaterMarks
from adyton_attestation.policy import AppraisalPolicy, EnrolledPlatform
from adyton_attestation.quote import TEE_SGX, Quote, parse_quote
from adyton_attestation.times import format_time
from adyton_protocol.errors import AppraisalError
from adyton_protocol.statement import as_nonce, report_data

if TYPE_CHECKING:
    # Only named here: a bare quote is appraised without loading what keysets and sealing need.
    from adyton_protocol.report import AttestationReport, TeeType

_BOUND = (
    CheckName.CHALLENGE,
    CheckName.KEY_BINDING,
    CheckName.KEYS_CURRENT,
    CheckName.CONFIGURATION,
    CheckName.MODELS,
)
_AFTER_PARSING = tuple(
    name for name in CheckName if name not in {CheckName.EVIDENCE_TYPE, CheckName.QUOTE_FORMAT}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What an appraisal that passed has established.

    Attributes:
        checks: Every verdict.
        quote: The quote, parsed.
        claims: What is known of the platform.
        platform: Its enrolment, or None when the policy does not ask.
        marks: The marks to keep.
    """

    checks: tuple[Check, ...]
    quote: Quote
    claims: DcapClaims
    platform: EnrolledPlatform | None
    marks: HighWaterMarks


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under what terms evidence is appraised.

    Attributes:
        policy: The policy.
        anchor: The pinned root.
        marks: What was seen before.
        now_s: Unix time.
    """

    policy: AppraisalPolicy
    anchor: TrustAnchor
    marks: HighWaterMarks
    now_s: int


def appraise_report(
    report: "AttestationReport",
    endorsements: Endorsements,
    terms: Terms,
    *,
    tee_type: "TeeType",
    challenge: str,
) -> Accepted:
    """Appraise a report of one trust domain, all 28 checks.

    Args:
        report: Attacker-controlled evidence.
        endorsements: Attacker-controlled endorsements.
        terms: Policy, root, marks and time.
        tee_type: The only kind of evidence to accept.
        challenge: The nonce that was sent for this report, 64 lower-case hexadecimal digits.

    Raises:
        AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
        LocalProtocolError: The challenge is not of its form, so it cannot be the one that was sent.
    """
    as_nonce(challenge)
    ledger = Ledger()
    ledger.run(CheckName.EVIDENCE_TYPE, lambda: _check_type(report.tee_type, tee_type))
    accepted = _appraise(ledger, report.quote, endorsements, terms, sgx_only=True)
    if accepted is not None:
        _check_bound(ledger, accepted[0], report, terms, challenge)
    return _conclude(ledger, accepted, terms)


def appraise_raw_quote(quote: bytes, endorsements: Endorsements, terms: Terms) -> Accepted:
    """Appraise a quote that comes without a report: checks 2 to 23.

    Args:
        quote: Attacker-controlled bytes, SGX or TDX.
        endorsements: Attacker-controlled endorsements.
        terms: Policy, root, marks and time.

    Raises:
        AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
    """
    ledger = Ledger()
    ledger.skip("a raw quote does not say what it is for", CheckName.EVIDENCE_TYPE)
    ledger.skip("a raw quote comes without a keyset", *_BOUND)
    return _conclude(ledger, _appraise(ledger, quote, endorsements, terms, sgx_only=False), terms)


Found = tuple[Quote, tuple[DcapClaims, str] | None, EnrolledPlatform | None]


def _appraise(
    ledger: Ledger, raw: bytes, endorsements: Endorsements, terms: Terms, *, sgx_only: bool
) -> Found | None:
    quote = ledger.run(CheckName.QUOTE_FORMAT, lambda: _parse(raw, sgx_only=sgx_only))
    if quote is None:
        ledger.skip("needs a quote", *_AFTER_PARSING)
        return None
    ledger.run(CheckName.QUOTE_LENGTH, lambda: guard.check_length(quote))
    ledger.run(CheckName.DEBUG_DISABLED, lambda: check_debug(quote))
    genuine = check_genuineness(ledger, raw, quote, endorsements, anchor=terms.anchor, now_s=terms.now_s)
    platform: EnrolledPlatform | None = None
    if genuine is None:
        ledger.skip("needs a verified quote", *PLATFORM_CHECKS)
    else:
        claims, ca_name = genuine
        platform = PlatformAppraisal(
            terms.policy, claims, endorsements, ca_name=ca_name, marks=terms.marks, now_s=terms.now_s
        ).run(ledger)
    IdentityAppraisal(terms.policy, quote, terms.now_s).run(ledger)
    return quote, genuine, platform


def _conclude(ledger: Ledger, found: Found | None, terms: Terms) -> Accepted:
    checks = ledger.conclude()
    if found is None or found[1] is None:
        # Unreachable while the ledger holds a failure for every way to get here; fails closed all the same.
        raise AppraisalError(CheckName.DCAP_VERIFICATION.value, expected="a verified quote", actual="none")
    quote, (claims, ca_name), platform = found[0], found[1], found[2]
    marks = terms.marks.raised(
        evaluation_number=claims.evaluation_number,
        root_crl_number=claims.root_crl_number,
        ca_name=ca_name,
        pck_crl_number=claims.pck_crl_number,
    )
    return Accepted(checks=checks, quote=quote, claims=claims, platform=platform, marks=marks)


def _check_type(found: "TeeType", expected: "TeeType") -> tuple[str, None]:
    if found != expected:
        raise Refusal(f"{expected} evidence", f"{found} evidence")
    return f"{found} evidence", None


def _parse(raw: bytes, *, sgx_only: bool) -> tuple[str, Quote]:
    quote = parse_quote(raw)
    kind = "SGX" if quote.header.tee_type == TEE_SGX else "TDX"
    if sgx_only and kind != "SGX":
        raise Refusal("an SGX quote", "a TDX quote")
    return f"{kind} quote of version {quote.header.version}", quote


def _check_bound(
    ledger: Ledger, quote: Quote, report: "AttestationReport", terms: Terms, challenge: str
) -> None:
    ledger.run(CheckName.CHALLENGE, lambda: _check_challenge(report, challenge))
    ledger.run(CheckName.KEY_BINDING, lambda: _check_binding(quote, report, challenge))
    ledger.run(CheckName.KEYS_CURRENT, lambda: _check_keys_current(report, terms))
    ledger.run(CheckName.CONFIGURATION, lambda: _check_configuration(report, terms))
    ledger.run(CheckName.MODELS, lambda: _check_models(report, terms))


def _check_challenge(report: "AttestationReport", challenge: str) -> tuple[str, None]:
    if report.nonce is None or not hmac.compare_digest(report.nonce, challenge):
        raise Refusal(
            "the challenge that was sent", "no challenge" if report.nonce is None else "another one"
        )
    return "answers the challenge that was sent", None


def _check_binding(quote: Quote, report: "AttestationReport", challenge: str) -> tuple[str, None]:
    # SECURITY: computed from the challenge that was sent, not from the one that the report states.
    expected = report_data(report.keyset.digest(), challenge)
    if not hmac.compare_digest(quote.report.report_data, expected):
        raise Refusal("report data over this keyset and challenge", "other report data")
    return f"the quote binds keyset {report.keyset.digest()}", None


def _check_keys_current(report: "AttestationReport", terms: Terms) -> tuple[str, None]:
    not_after, now_s, limit_s = report.keyset.not_after, terms.now_s, terms.policy.max_key_life_s
    if now_s >= not_after:
        raise Refusal(
            f"keys in force at {format_time(now_s)}", f"keys that ended at {format_time(not_after)}"
        )
    # SECURITY: the enclave dates its keys by the host's clock; set far ahead, it would make them live for years.
    if not_after - now_s > limit_s:
        raise Refusal(f"keys that end within {limit_s} seconds", f"keys until {format_time(not_after)}")
    return f"the keys end at {format_time(not_after)}", None


def _check_configuration(report: "AttestationReport", terms: Terms) -> tuple[str, None]:
    relaxed(terms.policy, CheckName.CONFIGURATION, terms.now_s)
    digest = report.keyset.extension.configuration_digest
    if digest not in terms.policy.configurations:
        raise Refusal("a configuration that the policy names", digest)
    return f"configuration {digest} is on the allow-list", None


def _check_models(report: "AttestationReport", terms: Terms) -> tuple[str, None]:
    relaxed(terms.policy, CheckName.MODELS, terms.now_s)
    allowed, models = dict(terms.policy.models), report.keyset.extension.models
    if not models:
        raise Refusal("at least one model", "none")
    for model in models:
        if model.identity not in allowed.get(model.name, frozenset()):
            raise Refusal(f"an identity that the policy allows for {model.name!r}", model.identity)
    return ", ".join(f"{model.name} = {model.identity}" for model in models), None
