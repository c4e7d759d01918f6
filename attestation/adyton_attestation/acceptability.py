# SPDX-License-Identifier: Apache-2.0
"""Checks 13 to 26: is genuine evidence good enough, by the policy?

The platform's checks read the claims that were verified; the enclave's checks read the quote, and count for
nothing unless its signatures were found good before.
"""

from collections.abc import Mapping

from adyton_attestation import guard
from adyton_attestation.checks import CheckName, Ledger, Refusal, Skipped
from adyton_attestation.dcap import DcapClaims
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.marks import HighWaterMarks
from adyton_attestation.policy import (
    NO_EXPIRY_S,
    AppraisalPolicy,
    EnrolledPlatform,
    KeySeparation,
)
from adyton_attestation.quote import EnclaveReport, Quote, SgxQuoteV3, TdReport
from adyton_attestation.reference_values import ReferenceValues, name_sources
from adyton_attestation.times import format_time

_DAY_S = 86_400
_TD_SEPT_VE_DISABLE = 1 << 28
_TD_MIGRATABLE = 1 << 29

PLATFORM_CHECKS = (
    CheckName.PCE_IDENTITY,
    CheckName.TCB_STATUS,
    CheckName.ADVISORIES,
    CheckName.EVALUATION_NUMBER,
    CheckName.ROLLBACK,
    CheckName.ENDORSEMENT_AGE,
    CheckName.PLATFORM,
)
"""The checks that need verified claims."""


def relaxed(policy: AppraisalPolicy, check: CheckName, now_s: int) -> None:
    """Skip a check that the policy relaxes at this time.

    Raises:
        Skipped: It does.
    """
    relaxation = policy.relaxation(check, now_s)
    if relaxation is not None:
        until = "" if relaxation.expires_s == NO_EXPIRY_S else f" until {format_time(relaxation.expires_s)}"
        raise Skipped(f"NOT CHECKED{until}: {relaxation.reason}")


class PlatformAppraisal:
    """Checks 13 to 19, over verified claims."""

    def __init__(
        self,
        policy: AppraisalPolicy,
        claims: DcapClaims,
        endorsements: Endorsements,
        *,
        numbers: Mapping[str, int],
        marks: HighWaterMarks,
        now_s: int,
    ) -> None:
        """Keep the facts."""
        self._policy = policy
        self._claims = claims
        self._endorsements = endorsements
        self._numbers = numbers
        self._marks = marks
        self._now_s = now_s

    def run(self, ledger: Ledger) -> EnrolledPlatform | None:
        """Make the checks; returns the enrolment, when the platform has one."""
        ledger.run(
            CheckName.PCE_IDENTITY, lambda: guard.check_pce_identity(self._endorsements, self._claims.pce_id)
        )
        ledger.run(CheckName.TCB_STATUS, self._status)
        ledger.run(CheckName.ADVISORIES, self._advisories)
        ledger.run(CheckName.EVALUATION_NUMBER, self._evaluation_number)
        ledger.run(CheckName.ROLLBACK, self._rollback)
        ledger.run(CheckName.ENDORSEMENT_AGE, self._age)
        return ledger.run(CheckName.PLATFORM, self._platform)

    def _status(self) -> tuple[str, None]:
        claims, accepted = self._claims, self._policy.accepted_statuses(self._now_s)
        for status in claims.statuses:
            if status not in accepted:
                raise Refusal(f"a TCB status among {', '.join(sorted(accepted)) or 'none'}", status)
            grace_s = accepted[status]
            age_s = self._now_s - claims.dated_s(status)
            if grace_s is not None and age_s > grace_s:
                raise Refusal(
                    f"a level of status {status} at most {grace_s // _DAY_S} days old",
                    f"one of {age_s // _DAY_S} days",
                )
        return (
            f"{claims.status}, level of {format_time(claims.tcb_date_s)}; quoting enclave {claims.qe_status}",
            None,
        )

    def _advisories(self) -> tuple[str, None]:
        allowed = self._policy.allowed_advisories(self._now_s)
        # SECURITY: whatever the status is; the quoting enclave's advisories join without changing it.
        open_ones = [item for item in self._claims.advisory_ids if item not in allowed]
        if open_ones:
            raise Refusal("every advisory on the allow-list", ", ".join(open_ones))
        return ", ".join(self._claims.advisory_ids) or "none", None

    def _evaluation_number(self) -> tuple[str, None]:
        relaxed(self._policy, CheckName.EVALUATION_NUMBER, self._now_s)
        number, minimum = self._claims.evaluation_number, self._policy.tcb.min_evaluation_number
        if number < minimum:
            raise Refusal(f"TCB evaluation data of number {minimum} or newer", f"number {number}")
        return f"TCB evaluation data number {number}", None

    def _rollback(self) -> tuple[str, None]:
        for document, found in self._numbers.items():
            mark = self._marks.number(document)
            if found < mark:
                raise Refusal(f"{document} of number {mark} or newer, as seen before", f"number {found}")
        return "no endorsement is older than one seen before", None

    def _age(self) -> tuple[str, None]:
        endorsements, limit_s = self._endorsements, self._policy.tcb.max_endorsement_age_s
        documents = (endorsements.tcb_info, endorsements.qe_identity, endorsements.pck_crl)
        issued_s, name = min((item.issued_s, item.name) for item in documents)
        age_s = self._now_s - issued_s
        if age_s > limit_s:
            raise Refusal(
                f"endorsements at most {limit_s / _DAY_S:.1f} days old",
                f"{name} of {age_s / _DAY_S:.1f}",
            )
        return f"the oldest, {name}, is {age_s / _DAY_S:.1f} days old", None

    def _platform(self) -> tuple[str, EnrolledPlatform]:
        relaxed(self._policy, CheckName.PLATFORM, self._now_s)
        ppid, instance = self._claims.ppid, self._claims.platform_instance_id
        for platform in self._policy.platforms:
            if platform.ppid != ppid:
                continue
            # SECURITY: one PPID in two registrations is two machines, or one that was taken apart and put together.
            if platform.platform_instance_id != instance:
                raise Refusal(
                    f"platform instance {platform.platform_instance_id.hex() or 'none'}, as enrolled",
                    f"a duplicate of PPID {ppid.hex()}: platform instance {instance.hex() or 'none'}",
                )
            return f"enrolled: kept by {platform.custodian}, at {platform.place}", platform
        raise Refusal(
            "an enrolled platform", f"PPID {ppid.hex()}, platform instance {instance.hex() or 'none'}"
        )


def check_debug(quote: Quote) -> tuple[str, None]:
    """Check 4: nobody may look into the enclave with a debugger.

    Raises:
        Refusal: Somebody may.
    """
    if quote.report.debug:
        raise Refusal("DEBUG off", "DEBUG on: its memory can be read")
    return "DEBUG is off", None


class IdentityAppraisal:
    """Checks 23 to 26, over the report in the quote."""

    def __init__(
        self, policy: AppraisalPolicy, quote: Quote, reference_values: ReferenceValues, now_s: int
    ) -> None:
        """Keep the facts."""
        self._policy = policy
        self._reference_values = reference_values
        self._identity = policy.identity
        self._quote = quote
        self._now_s = now_s

    def run(self, ledger: Ledger) -> None:
        """Make the checks."""
        ledger.run(CheckName.ATTRIBUTES, self._attributes)
        ledger.run(CheckName.ENCLAVE_IDENTITY, self._enclave_identity)
        ledger.run(CheckName.MISC_SELECT, self._misc_select)
        ledger.run(CheckName.KEY_SEPARATION, self._key_separation)

    def _attributes(self) -> tuple[str, None]:
        if not isinstance(self._quote, SgxQuoteV3):
            return _td_attributes(self._quote.report)
        flags, mask = self._quote.report.attribute_flags, self._identity.attribute_mask
        if flags & mask != self._identity.attribute_flags:
            raise Refusal(f"flags {self._identity.attribute_flags:#x} under mask {mask:#x}", f"{flags:#x}")
        xfrm, xfrm_mask = self._quote.report.xfrm, self._identity.xfrm_mask
        if xfrm & xfrm_mask != self._identity.xfrm:
            raise Refusal(f"XFRM {self._identity.xfrm:#x} under mask {xfrm_mask:#x}", f"{xfrm:#x}")
        return f"flags {flags:#x}, XFRM {xfrm:#x}", None

    def _enclave_identity(self) -> tuple[str, None]:
        relaxed(self._policy, CheckName.ENCLAVE_IDENTITY, self._now_s)
        if not isinstance(self._quote, SgxQuoteV3):
            return self._td_identity(self._quote.report)
        report, reference = self._quote.report, self._reference_values
        if reference.empty:
            raise Refusal(
                "an enclave that the policy names, and it names none", f"MRENCLAVE {report.mr_enclave.hex()}"
            )
        found = reference.keep_enclave(report)
        if not found:
            raise Refusal(
                "an enclave that the policy, or a release in force, names",
                f"MRENCLAVE {report.mr_enclave.hex()}{reference.standing_of(report)}, "
                f"MRSIGNER {report.mr_signer.hex()}, {_product(report)}",
            )
        source = name_sources(found)
        if any(report.mr_enclave in candidate.mr_enclaves for candidate in found):
            return f"MRENCLAVE {report.mr_enclave.hex()} is {source}", None
        return f"MRSIGNER {report.mr_signer.hex()}, {_product(report)}, is {source}", None

    def _td_identity(self, report: TdReport) -> tuple[str, None]:
        for td in self._identity.tds:
            if (td.mr_td, td.rt_mrs) == (report.mr_td, report.rt_mrs):
                return f"MRTD {report.mr_td.hex()} with its run-time measurements is on the allow-list", None
        raise Refusal("a trust domain that the policy names", f"MRTD {report.mr_td.hex()}")

    def _misc_select(self) -> tuple[str, None]:
        relaxed(self._policy, CheckName.MISC_SELECT, self._now_s)
        if not isinstance(self._quote, SgxQuoteV3):
            raise Skipped("a TDX quote has no such field")
        found, expected = self._quote.report.misc_select, self._identity.misc_select
        if found != expected:
            raise Refusal(f"MISCSELECT {expected:#x}", f"{found:#x}")
        return f"MISCSELECT {found:#x}", None

    def _key_separation(self) -> tuple[str, None]:
        relaxed(self._policy, CheckName.KEY_SEPARATION, self._now_s)
        if not isinstance(self._quote, SgxQuoteV3):
            return _td_configuration(self._quote.report)
        report = self._quote.report
        if not self._reference_values.keep(lambda candidate: _separated(report, candidate.key_separation)):
            raise Refusal(
                "CONFIGID, CONFIGSVN, extended product and family as stated",
                f"others, CONFIGSVN {report.config_svn}",
            )
        return "CONFIGID, CONFIGSVN, extended product and family as stated", None


def _product(report: EnclaveReport) -> str:
    return f"product {report.isv_prod_id}, security version {report.isv_svn}"


def _separated(report: EnclaveReport, expected: KeySeparation) -> bool:
    if (report.config_id, report.isv_ext_prod_id, report.isv_family_id) != (
        expected.config_id,
        expected.isv_ext_prod_id,
        expected.isv_family_id,
    ):
        return False
    return report.config_svn == 0 if expected.config_svn == 0 else report.config_svn >= expected.config_svn


def _td_attributes(report: TdReport) -> tuple[str, None]:
    if not report.td_attributes & _TD_SEPT_VE_DISABLE or report.td_attributes & _TD_MIGRATABLE:
        raise Refusal("SEPT_VE_DISABLE set and MIGRATABLE clear", f"TD attributes {report.td_attributes:#x}")
    return f"TD attributes {report.td_attributes:#x}", None


def _td_configuration(report: TdReport) -> tuple[str, None]:
    if any(report.mr_config_id) or any(report.mr_owner) or any(report.mr_owner_config):
        raise Refusal("MRCONFIGID, MROWNER and MROWNERCONFIG zero", "others")
    return "MRCONFIGID, MROWNER and MROWNERCONFIG are zero", None
