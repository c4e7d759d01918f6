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


def expected(byte: int, bit: int) -> CheckName:
    """Return the check that must notice the flip of one bit."""
    if (byte, bit) == DEBUG_BIT:
        return DEBUG
    if byte >= SIGNED:
        return CHAIN
    return next(check for first, end, check in REGIONS if first <= byte < end)


def flip_everywhere(lab: Any, positions: list[tuple[int, int]]) -> None:
    """Flip each bit alone, and hold that the expected check refuses the quote."""
    quote = lab.quote()
    endorsements, policy = lab.endorsements(), lab.policy()
    for byte, bit in positions:
        flipped = bytearray(quote)
        flipped[byte] ^= 1 << bit
        error = lab.refusal(lab.report(bytes(flipped)), endorsements, policy)
        assert failed_check(error) == expected(byte, bit).value, (byte, bit)


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
def test_every_single_bit_flip_is_refused(lab: Any) -> None:
    """The same for each of the bits, signed part and chain alike."""
    flip_everywhere(lab, [(byte, bit) for byte in range(len(lab.quote())) for bit in range(8)])
