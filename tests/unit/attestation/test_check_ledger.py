# SPDX-License-Identifier: Apache-2.0
"""The ledger of checks fails closed, and the record of a real result says whose it is."""

import dataclasses
from typing import Any

import pytest

from adyton_attestation.checks import CheckName, Ledger, Refusal, Skipped, checks_of, failed_check
from adyton_attestation.guard import check_length
from adyton_attestation.quote import parse_quote
from adyton_attestation.result import AttestationResult
from adyton_protocol.errors import AppraisalError, AttestationError, EndorsementError


def test_a_check_that_was_not_made_has_failed() -> None:
    """Forgetting a check refuses everything."""
    with pytest.raises(AppraisalError) as caught:
        Ledger().conclude()
    assert failed_check(caught.value) == CheckName.EVIDENCE_TYPE
    assert {item.verdict for item in checks_of(caught.value)} == {"fail"}


def test_the_first_failure_in_order_is_raised_whatever_was_found_first() -> None:
    """The order of the checks, not of their evaluation, decides which error a caller sees."""

    def refuse() -> tuple[str, None]:
        raise Refusal(expected="this", actual="that")

    def skip() -> tuple[str, None]:
        raise Skipped("not today")

    ledger = Ledger()
    ledger.run(CheckName.MODELS, refuse)
    ledger.run(CheckName.PLATFORM, skip)
    ledger.run(CheckName.ROLLBACK, refuse)
    for name in CheckName:
        if name not in {CheckName.MODELS, CheckName.PLATFORM, CheckName.ROLLBACK}:
            assert ledger.run(name, lambda: ("fine", 7)) == 7
    with pytest.raises(EndorsementError) as caught:
        ledger.conclude()
    assert failed_check(caught.value) == "rollback"
    verdicts = {item.name: item.verdict for item in checks_of(caught.value)}
    assert (verdicts["models"], verdicts["platform"], verdicts["quote-format"]) == ("fail", "skip", "pass")


def test_errors_from_elsewhere_carry_no_verdicts() -> None:
    """Asking any attestation error for its verdicts is safe."""
    assert checks_of(AttestationError("elsewhere")) == ()
    assert failed_check(AttestationError("elsewhere")) is None


def test_an_appraisal_error_names_check_expectation_and_finding(lab: Any) -> None:
    """A program gets the three facts apart from the sentence."""
    error = lab.refusal(lab.report(lab.quote(misc_select=1)))
    assert isinstance(error, AppraisalError)
    assert (error.check, error.expected, error.actual) == ("misc-select", "MISCSELECT 0x0", "0x1")


def test_the_record_of_a_real_result_names_the_real_trust_domain(lab: Any) -> None:
    """The two records differ in exactly the members that say whose they are."""
    simulated = lab.appraise()
    fields = {
        item.name: getattr(simulated, item.name)
        for item in dataclasses.fields(AttestationResult)
        if item.init
    }
    real = AttestationResult(**fields)
    ours, theirs = real.to_json(), simulated.to_json()
    assert {name for name in ours if ours[name] != theirs[name]} == {"tee_type", "trust_domain"}
    assert (ours["tee_type"], ours["trust_domain"]) == ("sgx", "intel")
    assert real.open_channel().keyset == lab.keyset


def test_the_guard_counts_padding(lab: Any) -> None:
    """What the report says about padding is what was there."""
    quote = lab.quote()
    assert check_length(parse_quote(quote))[0] == f"{len(quote)} bytes"
    assert check_length(parse_quote(quote + bytes(5)))[0] == f"{len(quote)} bytes, then 5 zero bytes"
