# SPDX-License-Identifier: Apache-2.0
"""Every way to be wrong that we know of is refused by its own check, on real bytes and on simulated ones."""

from pathlib import Path
from typing import get_args

import pytest

from adyton_attestation.checks import ERRORS, CheckName, checks_of, failed_check
from adyton_attestation.policy import TcbStatus
from adyton_protocol.errors import AppraisalError, AttestationError, EndorsementError
from negatives import NEGATIVES, Case, Negative, World, real_case, real_world, simulated_world, table
from real_samples import NotAvailable, samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
]


@pytest.fixture(scope="module")
def simulated() -> World:
    """One simulated world for all cases; nothing in it changes."""
    return simulated_world()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Real samples, or a visible skip."""
    try:
        return samples()
    except NotAvailable as reason:
        pytest.skip(f"real quotes are not available: {reason}")


def refused(case: Case, negative: Negative) -> None:
    """Hold that a case is refused, first of all by the check that the table names, with that check's error."""
    with pytest.raises(AttestationError) as caught:
        case.appraise()
    error = caught.value
    assert error.code == negative.code
    if negative.check is CheckName.ENDORSEMENTS_FORMAT and not checks_of(error):
        # Refused while it was parsed, before an appraisal began.
        assert isinstance(error, EndorsementError)
        return
    assert failed_check(error) == negative.check.value
    assert type(error) is ERRORS.get(negative.check, AppraisalError)


def test_the_simulated_case_is_accepted_when_nothing_is_wrong(simulated: World) -> None:
    """What each case spoils is sound: an UpToDate SGX platform, now and under newer endorsements."""
    for case in (simulated.case, simulated.later):
        assert case.appraise().claims.status == "UpToDate"


@pytest.mark.parametrize("negative", NEGATIVES, ids=lambda item: item.name)
def test_simulated_evidence_that_is_wrong_is_refused_by_its_check(
    simulated: World, negative: Negative
) -> None:
    """Each fault alone, below a simulated root."""
    refused(negative.spoil(simulated), negative)


@pytest.mark.network
@pytest.mark.parametrize("negative", [item for item in NEGATIVES if item.real], ids=lambda item: item.name)
def test_real_evidence_that_is_wrong_is_refused_by_its_check(
    files: dict[str, bytes], negative: Negative
) -> None:
    """Each fault alone that can be made of Intel's bytes, below Intel's root."""
    refused(negative.spoil(real_world(files)), negative)


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "number"), [("tdx_quote", 17), ("tdx_quote_td15ex", 20)], ids=["version-4", "version-5"]
)
def test_real_evidence_is_accepted_when_nothing_is_wrong(
    files: dict[str, bytes], name: str, number: int
) -> None:
    """What each case spoils is sound in its window."""
    accepted = real_case(files, name).appraise()
    assert (accepted.claims.status, accepted.claims.evaluation_number) == ("UpToDate", number)


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "check"), [("sgx_quote", "tcb-status"), ("tdx_quote_outdated", "dcap-verification")]
)
def test_real_evidence_that_nobody_spoiled_has_its_documented_outcome(
    files: dict[str, bytes], name: str, check: str
) -> None:
    """An SGX platform that needs configuration, and a platform below every TCB level, are refused for that."""
    with pytest.raises(AttestationError) as caught:
        real_case(files, name).appraise()
    assert failed_check(caught.value) == check


def test_every_status_has_a_case() -> None:
    """No status that a policy may name, and neither of those that it may not, is left out."""
    named = {item.name.removeprefix("td-").removeprefix("status-") for item in NEGATIVES}
    # The first two are accepted; the others are concluded from two levels of a trust domain, never stated by one.
    elsewhere = {"uptodate", "swhardeningneeded", "tdrelaunchadvised", "tdrelaunchadvisedconfigurationneeded"}
    for status in (*get_args(TcbStatus), "Revoked"):
        assert status.lower() in named | elsewhere


def test_the_page_shows_the_table() -> None:
    """docs/negatives.md holds the table of the cases."""
    assert table() in (Path(__file__).parents[3] / "docs" / "negatives.md").read_text()
