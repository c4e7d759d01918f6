# SPDX-License-Identifier: Apache-2.0
"""What ``adyton verify --html`` writes: one verification, accepted or refused, as a page for people.

Everything about the appliance is what its evidence says. Of refused evidence it is shown all the same, as a claim,
because whoever has to find out why needs to see it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from adyton.html import Content, Markup, Style, element, facts, joined, listed, page, section, table
from adyton.session import Attested, RefusedEvidence, Verdict
from adyton_attestation.certificates import parse_chain
from adyton_attestation.check_words import ExplainedCheck
from adyton_attestation.checks import failed_check
from adyton_attestation.endorsements import parse_endorsements
from adyton_attestation.genuineness import validity_periods
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.quote import CERTIFICATION_PCK_CHAIN, parse_quote
from adyton_attestation.times import format_time
from adyton_protocol.errors import AttestationError
from adyton_protocol.report import AttestationReport, parse_report

_SHOWS = (
    "A page is no evidence: it says what one appraisal found on one machine at one time. Whoever wants to know "
    "repeats it, with adyton verify or from a saved report file."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One verification, however it ended.

    Attributes:
        url: Address that was asked.
        policy: What was applied.
        at_s: Unix time of the appraisal.
        build: The software that appraised.
        simulated: Whether the caller chose a simulation.
        checks: Every verdict, explained; none if the evidence could not be parsed.
        attested: What was accepted.
        error: Why it was refused; exactly one of the two is there.
        evidence: What was refused, if it got here.
    """

    url: str
    policy: AppraisalPolicy
    at_s: int
    build: str
    simulated: bool
    checks: tuple[ExplainedCheck, ...]
    attested: Attested | None = None
    error: AttestationError | None = None
    evidence: RefusedEvidence | None = None


def verification_page(found: Verification) -> str:
    """Write the page; every word out of the evidence is text in it and nothing else."""
    return page(
        f"Verification of {found.url}",
        _verdict(found),
        section("This verification", facts(_circumstances(found))),
        *_claims(found),
        _checks(found),
        element("footer", element("p", _SHOWS, style="quiet")),
        simulated=found.simulated,
    )


def _verdict(found: Verification) -> Markup:
    counts = ", ".join(
        f"{sum(check.verdict == verdict for check in found.checks)} {word}"
        for verdict, word in (("pass", "passed"), ("fail", "failed"), ("skip", "not made"))
    )
    if found.error is not None:
        name = failed_check(found.error)
        where = f" by the check {name}" if name is not None else " before any check could be made"
        return joined(
            (
                element("p", element("strong", f"REFUSED{where}"), style="verdict fail"),
                element("p", f"{found.error.code}: {found.error}"),
                element("p", f"Checks: {counts}. Nothing was sent to the appliance."),
            )
        )
    word = "Accepted as SIMULATED; nothing here is protected" if found.simulated else "Accepted"
    style: Style = "verdict skip" if found.simulated else "verdict pass"
    return joined((element("p", element("strong", word), style=style), element("p", f"Checks: {counts}.")))


def _circumstances(found: Verification) -> Iterator[tuple[str, Content]]:
    yield "Appliance", found.url
    yield "Appraised at", format_time(found.at_s)
    yield "Policy", f"{found.policy.name} ({found.policy.digest()})"
    yield "Appraised by", found.build


def _claims(found: Verification) -> Iterator[Markup]:
    if found.attested is not None:
        yield from _accepted(found.attested.verdict)
        yield _endorsements(found.attested, parse_report(found.attested.report), found.at_s)
    elif found.evidence is not None:
        yield from _refused(found.evidence, found.at_s)


def _accepted(verdict: Verdict) -> Iterator[Markup]:
    claims, platform, quote = verdict.claims, verdict.platform, verdict.quote
    yield section(
        "Platform",
        facts(
            (
                ("TCB status", f"{claims.status}, level of {format_time(claims.tcb_date_s)}"),
                ("Advisories", ", ".join(claims.advisory_ids) or "none"),
                ("TCB evaluation number", str(claims.evaluation_number)),
                ("Kept by", "not checked" if platform is None else platform.custodian),
                ("Place", "not checked" if platform is None else platform.place),
                ("PPID", claims.ppid.hex()),
                ("Platform instance", claims.platform_instance_id.hex() or "none"),
                ("FMSPC", claims.fmspc.hex()),
                ("MRENCLAVE", quote.report.mr_enclave.hex()),
                ("MRSIGNER", quote.report.mr_signer.hex()),
            )
        ),
    )
    releases = [f"{item.product} release {item.release} ({item.name})" for item in verdict.releases]
    yield section("Release", element("p", listed(releases or ["the policy's own reference values were met"])))
    yield from _keys(verdict.report)


def _keys(report: AttestationReport) -> Iterator[Markup]:
    keyset = report.keyset
    yield section(
        "Keys",
        facts(
            (
                ("Keyset", keyset.digest()),
                ("In force until", format_time(keyset.not_after)),
                ("Configuration", keyset.extension.configuration_digest),
            )
        ),
    )
    models = keyset.extension.models
    yield section(
        "Models",
        table(
            "Names and identities in the keyset",
            ("Model", "Identity"),
            [(model.name, model.identity) for model in models],
        )
        if models
        else element("p", "none"),
    )


def _refused(evidence: RefusedEvidence, at_s: int) -> Iterator[Markup]:
    yield element(
        "p", "What follows is what the refused evidence claims. Nothing of it is believed.", style="fail"
    )
    try:
        report = parse_report(evidence.report)
    except AttestationError as error:
        yield section("Evidence", element("p", f"cannot be read: {error}"))
        return
    yield from _keys(report)
    yield _endorsements(evidence, report, at_s)


def _endorsements(found: Attested | RefusedEvidence, report: AttestationReport, at_s: int) -> Markup:
    came = [element("p", f"From {found.origin}.")]
    if found.notice is not None:
        came.append(element("p", found.notice, style="skip"))
    try:
        endorsements = parse_endorsements(found.endorsements)
        quote = parse_quote(report.quote)
        data = quote.signature.certification_data
        inside = quote.signature.certification_type == CERTIFICATION_PCK_CHAIN
        periods = validity_periods(endorsements, parse_chain(data, "PCK chain") if inside else ())
    except AttestationError as error:
        return section("Endorsements", *came, element("p", f"cannot be read: {error}"))
    return section(
        "Endorsements",
        *came,
        table(
            "When each was issued, and when it ends",
            ("Document or certificate", "From", "Until", "At the appraisal"),
            [
                (
                    name,
                    format_time(first_s),
                    format_time(last_s),
                    element("span", "in force", style="pass")
                    if first_s <= at_s <= last_s
                    else element("span", "NOT IN FORCE", style="fail"),
                )
                for name, first_s, last_s in dict.fromkeys(periods)
            ],
        ),
    )


def _checks(found: Verification) -> Markup:
    if not found.checks:
        return section("Checks", element("p", "None could be made: the evidence cannot be read."))
    return section(
        "Checks",
        table(
            "Every check, in order: what it asks, what was found, and the rule that it was held to",
            ("No.", "Verdict", "Check", "Found", "Rule"),
            [
                (
                    str(check.number),
                    element("span", check.verdict, style=check.verdict),
                    joined((element("code", check.name), " ", check.question)),
                    check.detail,
                    listed(check.rules),
                )
                for check in found.checks
            ],
        ),
    )
