# SPDX-License-Identifier: Apache-2.0
"""No single bit of a quote can change without the appraisal noticing."""

from typing import Any

import pytest

from adyton_attestation.checks import CheckName, failed_check

# What cryptography says about odd certificates is not ours to say; the odd ones are refused for better reasons.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
]

SIGNED = 1052
"""Everything before the certificate chain: header, report, both signatures, attestation key, QE report."""

FORMAT, SIGNATURES = CheckName.QUOTE_FORMAT, CheckName.QUOTE_SIGNATURES
DEBUG, CHAIN = CheckName.DEBUG_DISABLED, CheckName.PCK_CHAIN

REGIONS: tuple[tuple[int, int, CheckName], ...] = (
    (0, 8, FORMAT),  # version, key type, TEE type
    (8, 12, SIGNATURES),  # QE and PCE security versions
    (12, 28, FORMAT),  # QE vendor
    (28, 432, SIGNATURES),  # user data, enclave report
    (432, 436, FORMAT),  # length
    (436, 1012, SIGNATURES),  # signature, attestation key, QE report and its signature
    (1012, 1014, FORMAT),  # length
    (1014, 1046, SIGNATURES),  # QE authentication data
    (1046, 1048, CHAIN),  # certification type
    (1048, 1052, FORMAT),  # length
)
DEBUG_BIT = (96, 1)


def expected(byte: int, bit: int) -> frozenset[CheckName]:
    """Return the checks of which one must be the first to notice the flip of a bit."""
    if (byte, bit) == DEBUG_BIT:
        return frozenset({DEBUG})
    if byte >= SIGNED:
        # Parts of a certificate that its signature does not cover are left to the second library.
        return frozenset({CHAIN, CheckName.DCAP_VERIFICATION})
    return frozenset({next(check for first, end, check in REGIONS if first <= byte < end)})


def flip_everywhere(lab: Any, positions: list[tuple[int, int]]) -> None:
    """Flip each bit alone, and hold that the expected check refuses the quote."""
    quote = lab.quote()
    endorsements, policy = lab.endorsements(), lab.policy()
    for byte, bit in positions:
        flipped = bytearray(quote)
        flipped[byte] ^= 1 << bit
        error = lab.refusal(lab.report(bytes(flipped)), endorsements, policy)
        assert failed_check(error) in expected(byte, bit), (byte, bit)


def test_flips_of_signed_parts_are_refused_one_bit_of_every_byte(lab: Any) -> None:
    """Every byte before the certificate chain is protected, and by the check that one would name."""
    flip_everywhere(lab, [*((byte, byte * 5 % 8) for byte in range(SIGNED)), DEBUG_BIT])


def test_flips_in_the_certificate_chain_are_refused(lab: Any) -> None:
    """The chain is not covered by a signature as text; its one canonical form is."""
    size = len(lab.quote())
    flip_everywhere(
        lab, [(byte, byte % 7) for byte in range(SIGNED, size, 11)] + [(size - 1, bit) for bit in range(8)]
    )


@pytest.mark.slow
def test_every_single_bit_flip_of_the_signed_parts_is_refused(lab: Any) -> None:
    """The same for all eight bits of every byte before the chain."""
    flip_everywhere(lab, [(byte, bit) for byte in range(SIGNED) for bit in range(8)])


@pytest.mark.slow
def test_a_flip_in_every_byte_of_the_certificate_chain_is_refused(lab: Any) -> None:
    """No byte of the chain is free: not of a certificate, not of its encoding, not of the lines around it."""
    flip_everywhere(lab, [(byte, byte * 3 % 8) for byte in range(SIGNED, len(lab.quote()))])
