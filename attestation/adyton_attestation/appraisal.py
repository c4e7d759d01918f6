# SPDX-License-Identifier: Apache-2.0
"""The appraisal: 31 numbered checks, made in order, each with a verdict; the first failure is raised.

1 is the kind of evidence; 2 to 4 the quote's form; 5 to 12 whether it is genuine (``genuineness``); 13 to 26
whether that is good enough (``acceptability``, ``reference_values``); 27 to 31 whether it speaks for these keys,
now. Every check that can be made is made and reported, also after one has failed. ``docs/appraisal.md`` explains
each.

No I/O and no clock: evidence, endorsements, policy, marks, challenge and time are arguments.
"""

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
from adyton_attestation.marks import HighWaterMarks, endorsement_numbers
from adyton_attestation.policy import AppraisalPolicy, EnrolledPlatform
from adyton_attestation.quote import TEE_SGX, Quote, parse_quote
from adyton_attestation.reference_values import ReferenceValues, ReleaseAppraisal, name_sources
from adyton_attestation.times import format_time
from adyton_protocol.errors import AppraisalError
from adyton_protocol.statement import as_nonce, report_data

if TYPE_CHECKING:
    # Only named here: a bare quote is appraised without loading what keysets, sealing and releases need.
    from adyton_attestation.release_file import VerifiedReleases
    from adyton_attestation.release_statement import ReleaseStatement
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
        releases: The releases whose reference values were met; none if the policy's own were.
    """

    checks: tuple[Check, ...]
    quote: Quote
    claims: DcapClaims
    platform: EnrolledPlatform | None
    marks: HighWaterMarks
    releases: "tuple[ReleaseStatement, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under what terms evidence is appraised.

    Attributes:
        policy: The policy.
        anchor: The pinned root.
        marks: What was seen before.
        now_s: Unix time.
        releases: A release file, if there is one; attacker-controlled.
    """

    policy: AppraisalPolicy
    anchor: TrustAnchor
    marks: HighWaterMarks
    now_s: int
    releases: bytes | None = None


def appraise_report(
    report: "AttestationReport",
    endorsements: Endorsements,
    terms: Terms,
    *,
    tee_type: "TeeType",
    challenge: str,
) -> Accepted:
    """Appraise a report of one trust domain, all 31 checks.

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
        _check_bound(ledger, accepted, report, terms, challenge)
    return _conclude(ledger, accepted, terms)


def appraise_raw_quote(quote: bytes, endorsements: Endorsements, terms: Terms) -> Accepted:
    """Appraise a quote that comes without a report: checks 2 to 26.

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


def appraise_key_quote(
    quote: bytes,
    endorsements: Endorsements,
    terms: Terms,
    *,
    binding: bytes,
    in_force: tuple[int, int],
) -> Accepted:
    """Appraise a quote out of a TLS certificate: what every quote has to pass, the binding and the time.

    It says which enclave made the key, and nothing of configuration, models or freshness; those come with the report
    that lists the key (``ra_tls``).

    Args:
        quote: Attacker-controlled bytes.
        endorsements: Attacker-controlled endorsements.
        terms: Policy, root, marks and time.
        binding: The report data that binds the certificate's key, 64 bytes.
        in_force: The certificate's first and last second.

    Raises:
        AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
    """
    ledger = Ledger()
    ledger.skip("a certificate does not say; its root does", CheckName.EVIDENCE_TYPE)
    ledger.skip(
        "the report that lists this key answers for it",
        CheckName.CHALLENGE,
        CheckName.CONFIGURATION,
        CheckName.MODELS,
    )
    accepted = _appraise(ledger, quote, endorsements, terms, sgx_only=True)
    if accepted is not None:
        ledger.run(CheckName.KEY_BINDING, lambda: _check_key_quote(accepted.quote, binding))
        ledger.run(CheckName.KEYS_CURRENT, lambda: _check_in_force(in_force, terms))
    return _conclude(ledger, accepted, terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the checks of a quote that could be parsed came to.

    Attributes:
        quote: It.
        genuine: What is known of the platform, and the numbers of its endorsements; None if the quote is not genuine.
        platform: Its enrolment.
        releases: The releases that were shown, None without.
        reference_values: What enclaves are held to.
    """

    quote: Quote
    genuine: tuple[DcapClaims, dict[str, int]] | None
    platform: EnrolledPlatform | None
    releases: "VerifiedReleases | None"
    reference_values: ReferenceValues


def _appraise(
    ledger: Ledger, raw: bytes, endorsements: Endorsements, terms: Terms, *, sgx_only: bool
) -> _Found | None:
    quote = ledger.run(CheckName.QUOTE_FORMAT, lambda: _parse(raw, sgx_only=sgx_only))
    if quote is None:
        ledger.skip("needs a quote", *_AFTER_PARSING)
        return None
    ledger.run(CheckName.QUOTE_LENGTH, lambda: guard.check_length(quote))
    ledger.run(CheckName.DEBUG_DISABLED, lambda: check_debug(quote))
    verified = check_genuineness(ledger, raw, quote, endorsements, anchor=terms.anchor, now_s=terms.now_s)
    genuine: tuple[DcapClaims, dict[str, int]] | None = None
    platform: EnrolledPlatform | None = None
    if verified is None:
        ledger.skip("needs a verified quote", *PLATFORM_CHECKS)
    else:
        claims, ca_name = verified
        tee: Literal["sgx", "tdx"] = "sgx" if quote.header.tee_type == TEE_SGX else "tdx"
        numbers = endorsement_numbers(endorsements, claims, terms.anchor, tee=tee, ca_name=ca_name)
        genuine = claims, numbers
        platform = PlatformAppraisal(
            terms.policy, claims, endorsements, numbers=numbers, marks=terms.marks, now_s=terms.now_s
        ).run(ledger)
    releases = _appraise_releases(ledger, terms)
    reference_values = ReferenceValues(terms.policy, releases)
    IdentityAppraisal(terms.policy, quote, reference_values, terms.now_s).run(ledger)
    return _Found(
        quote=quote,
        genuine=genuine,
        platform=platform,
        releases=releases,
        reference_values=reference_values,
    )


def _appraise_releases(ledger: Ledger, terms: Terms) -> "VerifiedReleases | None":
    wanted = terms.policy.releases
    mark = None if wanted is None else terms.marks.release_mark(wanted.origin)
    return ReleaseAppraisal(terms=wanted, data=terms.releases, mark=mark, now_s=terms.now_s).run(ledger)


def _conclude(ledger: Ledger, found: _Found | None, terms: Terms) -> Accepted:
    checks = ledger.conclude()
    if found is None or found.genuine is None:
        # Unreachable while the ledger holds a failure for every way to get here; fails closed all the same.
        raise AppraisalError(CheckName.DCAP_VERIFICATION.value, expected="a verified quote", actual="none")
    claims, numbers = found.genuine
    marks = terms.marks.raised(numbers, None if found.releases is None else found.releases.mark)
    return Accepted(
        checks=checks,
        quote=found.quote,
        claims=claims,
        platform=found.platform,
        marks=marks,
        releases=found.reference_values.releases(),
    )


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
    ledger: Ledger, found: _Found, report: "AttestationReport", terms: Terms, challenge: str
) -> None:
    reference = found.reference_values
    ledger.run(CheckName.CHALLENGE, lambda: _check_challenge(report, challenge))
    ledger.run(CheckName.KEY_BINDING, lambda: _check_binding(found.quote, report, challenge))
    ledger.run(CheckName.KEYS_CURRENT, lambda: _check_keys_current(report, terms))
    ledger.run(CheckName.CONFIGURATION, lambda: _check_configuration(report, terms, reference))
    ledger.run(CheckName.MODELS, lambda: _check_models(report, terms, reference))


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


def _check_key_quote(quote: Quote, binding: bytes) -> tuple[str, None]:
    if not hmac.compare_digest(quote.report.report_data, binding):
        raise Refusal("report data over the certificate's public key", "other report data")
    return "the quote binds the certificate's public key", None


def _check_in_force(in_force: tuple[int, int], terms: Terms) -> tuple[str, None]:
    first_s, last_s = in_force
    if not first_s <= terms.now_s <= last_s:
        raise Refusal(
            f"a certificate in force at {format_time(terms.now_s)}",
            f"one from {format_time(first_s)} to {format_time(last_s)}",
        )
    # SECURITY: as for keysets: the enclave dates its certificates by the host's clock.
    if last_s - terms.now_s > terms.policy.max_key_life_s:
        raise Refusal(
            f"a certificate that ends within {terms.policy.max_key_life_s} seconds",
            f"one until {format_time(last_s)}",
        )
    return f"the certificate ends at {format_time(last_s)}", None


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


def _check_configuration(
    report: "AttestationReport", terms: Terms, reference: ReferenceValues
) -> tuple[str, None]:
    relaxed(terms.policy, CheckName.CONFIGURATION, terms.now_s)
    digest = report.keyset.extension.configuration_digest
    found = reference.keep(lambda candidate: digest in candidate.configurations)
    if not found:
        raise Refusal("a configuration that the policy, or the enclave's release, names", digest)
    sources = name_sources(found, lambda enclave: enclave.configurations is not None)
    return f"configuration {digest} is {sources}", None


def _check_models(report: "AttestationReport", terms: Terms, reference: ReferenceValues) -> tuple[str, None]:
    relaxed(terms.policy, CheckName.MODELS, terms.now_s)
    models = report.keyset.extension.models
    if not models:
        raise Refusal("at least one model", "none")
    # SECURITY: all at once, so that the models together are those of one release, or of the policy.
    found = reference.keep(lambda candidate: all(map(candidate.has_model, models)))
    if not found:
        wrong = next((model for model in models if not reference.any_has(model)), models[0])
        raise Refusal(
            f"an identity that the policy, or the enclave's release, allows for {wrong.name!r}",
            wrong.identity,
        )
    names = ", ".join(f"{model.name} = {model.identity}" for model in models)
    return f"{names}: {name_sources(found, lambda enclave: enclave.models is not None)}", None
