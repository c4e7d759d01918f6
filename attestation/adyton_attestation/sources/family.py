# SPDX-License-Identifier: Apache-2.0
"""What a quote needs: the three facts by which endorsements are published.

TCB info is stated per FMSPC, revocation lists per PCK CA, identities per TEE. All three stand in the quote itself,
so that nothing else has to be known about a machine. They are read, not believed: a lie here fetches endorsements that
the appraisal will not accept.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

import dcap_qvl
from cryptography import x509

from adyton_attestation.certificates import common_name, parse_chain
from adyton_attestation.quote import CERTIFICATION_PCK_CHAIN, SgxQuoteV3, parse_quote
from adyton_protocol.errors import EndorsementError

PckCa: TypeAlias = Literal["platform", "processor"]
"""Who certified the platform's key: ``platform`` for machines with several sockets, ``processor`` for others."""
Tee: TypeAlias = Literal["sgx", "tdx"]

FMSPC_BYTES: Final = 6
_LABEL: Final = re.compile(r"(sgx|tdx)-([0-9a-f]{12})-(platform|processor)")
_CA_NAMES: Final[dict[str, PckCa]] = {"SGX PCK Platform CA": "platform", "SGX PCK Processor CA": "processor"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PlatformFamily:
    """All machines that share endorsements.

    Attributes:
        tee: What the quote is of.
        fmspc: Family, model, stepping, platform and custom SKU; 6 bytes.
        ca: The PCK CA.
    """

    tee: Tee
    fmspc: bytes
    ca: PckCa

    @property
    def label(self) -> str:
        """The family in one word that is also a file name, for example ``sgx-00906ed50000-platform``."""
        return f"{self.tee}-{self.fmspc.hex()}-{self.ca}"

    @classmethod
    def parse(cls, label: str) -> Self | None:
        """Read a label; None when it is none."""
        found = _LABEL.fullmatch(label)
        if found is None:
            return None
        tee: Tee = "sgx" if found[1] == "sgx" else "tdx"
        ca: PckCa = "platform" if found[3] == "platform" else "processor"
        return cls(tee=tee, fmspc=bytes.fromhex(found[2]), ca=ca)

    @classmethod
    def of_quote(cls, quote: bytes) -> Self:
        """Say what an attacker-controlled quote needs.

        Raises:
            MalformedEvidence: It is no quote.
            EndorsementError: It has no PCK certificate chain that can be read.
        """
        parsed = parse_quote(quote)
        section = parsed.signature
        if section.certification_type != CERTIFICATION_PCK_CHAIN:
            raise EndorsementError("the quote has no PCK certificate chain, so nobody can say what it needs")
        chain = parse_chain(section.certification_data, "PCK chain")
        if len(chain) < 2:  # noqa: PLR2004 - a certificate and its issuer
            raise EndorsementError("PCK chain: the PCK CA is missing")
        return cls(
            tee="sgx" if isinstance(parsed, SgxQuoteV3) else "tdx",
            fmspc=_fmspc(section.certification_data.rstrip(b"\x00")),
            ca=pck_ca(chain[1]),
        )


def pck_ca(certificate: x509.Certificate) -> PckCa:
    """Return which PCK CA a certificate says that it is, in any trust domain.

    Raises:
        EndorsementError: None.
    """
    _, _, role = common_name(certificate).partition(" ")
    found = _CA_NAMES.get(role)
    if found is None:
        raise EndorsementError("PCK chain: the issuer is not a PCK CA")
    return found


def _fmspc(chain_pem: bytes) -> bytes:
    try:
        fmspc: bytes = bytes(dcap_qvl.parse_pck_extension_from_pem(chain_pem).fmspc)
    except (ValueError, TypeError) as cause:
        raise EndorsementError("PCK certificate: no SGX extension that can be read") from cause
    except BaseException as cause:
        # SECURITY: a hostile certificate must end in a refusal, also where it trips the library.
        if type(cause).__name__ != "PanicException":
            raise
        raise EndorsementError("PCK certificate: reading its SGX extension broke off") from None
    if len(fmspc) != FMSPC_BYTES:
        raise EndorsementError(f"PCK certificate: an FMSPC of {len(fmspc)} bytes")
    return fmspc
