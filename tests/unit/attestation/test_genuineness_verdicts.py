# SPDX-License-Identifier: Apache-2.0
"""What is said of the checks behind one that failed: skipped with a reason, never passed, never forgotten."""

from typing import Any

import pytest

from adyton_attestation.checks import CheckName, checks_of
from adyton_attestation.simulation.pki import issue
from adyton_protocol.errors import AttestationError, LocalProtocolError
from negatives import NEGATIVES, NOW_S, World, simulated_world, with_pck_ca

pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
]

LATER = (
    CheckName.PCE_IDENTITY,
    CheckName.TCB_STATUS,
    CheckName.ADVISORIES,
    CheckName.ROLLBACK,
    CheckName.ENDORSEMENT_AGE,
)
"""Checks over claims; nobody made any."""


@pytest.fixture(scope="module")
def world() -> World:
    """One simulated world; nothing in it changes."""
    return simulated_world()


def verdicts(world: World, name: str) -> dict[str, str]:
    """Every verdict on one of the negatives."""
    (negative,) = [item for item in NEGATIVES if item.name == name]
    with pytest.raises(AttestationError) as caught:
        negative.spoil(world).appraise()
    return {item.name: item.verdict for item in checks_of(caught.value)}


def test_without_a_pck_chain_what_needs_one_is_skipped(world: World) -> None:
    """Revocation, the quote's signatures, the second library and the platform's checks are not made."""
    found = verdicts(world, "certification-type")
    failed = {name for name, verdict in found.items() if verdict == "fail"}
    assert failed == {"pck-chain"}
    for name in (CheckName.NOT_REVOKED, CheckName.QUOTE_SIGNATURES, CheckName.DCAP_VERIFICATION, *LATER):
        assert found[name] == "skip", name
    for name in (CheckName.SIGNING_CHAINS, CheckName.ENDORSEMENTS_CURRENT, CheckName.ENDORSEMENT_SIGNATURES):
        assert found[name] == "pass", name


def test_without_the_right_signers_no_claims_are_made(world: World) -> None:
    """What somebody without the right role has signed is not even read by the second library."""
    found = verdicts(world, "platform-signs-tcb-info")
    assert {name for name, verdict in found.items() if verdict == "fail"} == {"signing-chains"}
    for name in (CheckName.DCAP_VERIFICATION, *LATER):
        assert found[name] == "skip", name
    assert found[CheckName.QUOTE_SIGNATURES] == "pass"


def test_a_platform_below_the_processor_ca_is_genuine_too(world: World) -> None:
    """Intel has two PCK CAs, one for servers that register and one for the others."""
    pki = world.keys
    processor_ca = issue(
        "Simulated SGX PCK Processor CA", issuer=pki.root, now_s=NOW_S, ca=True, path_length=0
    )
    accepted = with_pck_ca(world, processor_ca).appraise()
    assert {item.verdict for item in accepted.checks} == {"pass", "skip"}
    numbers = {name.partition(" below ")[0]: number for name, number in accepted.marks.documents}
    assert numbers["PCK CRL of Simulated SGX PCK Processor CA"] == 1


def test_endorsements_hold_on_the_edges_of_their_window(world: World) -> None:
    """The seconds of issue and of expiry belong to the window; the second library gives up a second sooner."""
    found = world.case.endorsements()
    parts: list[Any] = [found.tcb_info, found.qe_identity, found.root_crl, found.pck_crl]
    first_s, last_s = max(item.issued_s for item in parts), min(item.next_update_s for item in parts)
    world.case.bent(now_s=first_s).appraise()
    with pytest.raises(AttestationError) as caught:
        world.case.bent(now_s=last_s).appraise()
    assert {item.name for item in checks_of(caught.value) if item.verdict == "fail"} == {"dcap-verification"}


def test_a_challenge_of_another_form_is_the_callers_error_whatever_the_evidence(lab: Any) -> None:
    """What was never sent is not looked for in evidence, sound or not."""
    with pytest.raises(LocalProtocolError):
        lab.appraise(lab.report(b"no quote at all"), challenge="nonce")
