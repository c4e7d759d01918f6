# SPDX-License-Identifier: Apache-2.0
"""Evidence that is wrong in one way each, made of real quotes and of simulated ones, and the check that must say so.

``docs/negatives.md`` shows :func:`table`; a test keeps the two equal. Real bytes are Intel's and cannot be signed
again, so that some faults exist only below a simulated root, whose key is ours.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from adyton_attestation.bare_quote import QuoteAppraisal, appraise_quote
from adyton_attestation.checks import ERRORS, CheckName
from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.policy import RAW_QUOTE_POLICY, AppraisalPolicy
from adyton_attestation.quote import parse_quote
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import (
    PCK_CA_NAME,
    PCK_NAME,
    TCB_SIGNING_NAME,
    Authority,
    SimulatedPki,
    create_pki,
    issue,
    sgx_extension,
    utc,
)
from adyton_attestation.simulation.quoting import (
    EnclaveReportSpec,
    TdReportSpec,
    build_sgx_quote,
    build_tdx_quote,
)
from adyton_protocol.errors import AppraisalError

DAY_S: Final = 86_400
NOW_S: Final = 1_790_000_000
REPORT_BYTE: Final = 150
_V3_SECTION, _V4_SECTION = 432, 632


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is appraised; every part can be exchanged for a wrong one."""

    quote: bytes
    collateral: dict[str, Any]
    now_s: int
    root_der: bytes
    policy: AppraisalPolicy = RAW_QUOTE_POLICY
    marks: HighWaterMarks = NO_MARKS

    def endorsements(self) -> Endorsements:
        """Parse the collateral."""
        return parse_endorsements(json.dumps(self.collateral).encode())

    def appraise(self) -> QuoteAppraisal:
        """Appraise; raises what is wrong."""
        return appraise_quote(
            self.quote,
            self.endorsements(),
            self.policy,
            now_s=self.now_s,
            root_der=self.root_der,
            marks=self.marks,
        )

    def bent(self, **changes: Any) -> "Case":
        """Return the case with other parts."""
        return dataclasses.replace(self, **changes)

    def with_collateral(self, **members: Any) -> "Case":
        """Return the case with other members of the collateral; None leaves one out."""
        merged = {name: value for name, value in (self.collateral | members).items() if value is not None}
        return self.bent(collateral=merged)

    def flipped(self, byte: int, bit: int = 0) -> "Case":
        """Return the case with one bit of the quote turned."""
        quote = bytearray(self.quote)
        quote[byte] ^= 1 << bit
        return self.bent(quote=bytes(quote))


@dataclass(frozen=True, kw_only=True)
class World:
    """Genuine cases of one trust domain, and what else is needed to spoil them.

    Attributes:
        case: A case that is accepted, or (real SGX) would be for its status.
        section: Where the signature section of its quote begins.
        later: The case under newer collateral of the same family, for rollback.
        stranger: A quote of another platform of the same family.
        foreign_crl: A CRL of another PCK CA, hexadecimal.
        expired_crl: A PCK CRL of the right CA that ran out before ``later`` is appraised, hexadecimal.
        other_root_der: A root of the other trust domain.
        pki: The keys, when they are ours.
    """

    case: Case
    section: int
    later: Case
    stranger: bytes
    foreign_crl: str
    expired_crl: str
    other_root_der: bytes
    pki: SimulatedPki | None = None

    @property
    def keys(self) -> SimulatedPki:
        """The keys of a simulated world."""
        assert self.pki is not None
        return self.pki


Spoil = Callable[[World], Case]


@dataclass(frozen=True, kw_only=True)
class Negative:
    """One way to be wrong.

    Attributes:
        name: Short name.
        says: What is wrong, in words.
        check: The first check that fails.
        spoil: Makes the wrong case.
        real: Whether it can be made of real bytes.
    """

    name: str
    says: str
    check: CheckName
    spoil: Spoil
    real: bool = True

    @property
    def code(self) -> str:
        """The code of the error that the check raises."""
        return ERRORS.get(self.check, AppraisalError).code


def real_world(samples: dict[str, bytes]) -> World:
    """Return the world of Intel's root: a TDX version 4 quote of 2025, and one of version 5 from the same family."""
    case, later = real_case(samples, "tdx_quote"), real_case(samples, "tdx_quote_td15ex")
    newer = {name: value for name, value in later.collateral.items() if name != "pck_certificate_chain"}
    return World(
        case=case,
        section=_V4_SECTION,
        later=case.bent(collateral=newer, now_s=later.now_s),
        stranger=bytes.fromhex(samples["quote-from-tappd.hex"].decode().strip().removeprefix("0x")),
        foreign_crl=json.loads(samples["sgx_quote_collateral.json"])["pck_crl"],
        expired_crl=case.collateral["pck_crl"],
        other_root_der=create_pki(NOW_S).root.der(),
    )


def real_case(samples: dict[str, bytes], name: str) -> Case:
    """Return a sample with its collateral, a day after the last part of it was issued."""
    data = samples[f"{name}_collateral.json"]
    found = parse_endorsements(data)
    issued_s = max(item.issued_s for item in (found.tcb_info, found.qe_identity, found.pck_crl))
    return Case(
        quote=samples[name],
        collateral=json.loads(data),
        now_s=issued_s + DAY_S,
        root_der=INTEL_SGX_ROOT_DER,
    )


def simulated_world() -> World:
    """Return the world of a simulated root, with an SGX quote."""
    pki, other = create_pki(NOW_S), create_pki(NOW_S)
    report = EnclaveReportSpec(mr_enclave=bytes(range(32)), report_data=bytes(range(64)))
    second = issue(
        PCK_NAME, issuer=pki.pck_ca, now_s=NOW_S, ca=False, sgx_extension=sgx_extension(pki.platform)
    )
    stranger = build_sgx_quote(dataclasses.replace(pki, pck=second), report)
    case = Case(
        quote=build_sgx_quote(pki, report),
        collateral=simulated_collateral(pki),
        now_s=NOW_S,
        root_der=pki.root.der(),
    )
    newer = simulated_collateral(pki, issued_s=NOW_S + 60 * DAY_S, evaluation_number=22, crl_number=9)
    return World(
        case=case,
        section=_V3_SECTION,
        later=case.bent(collateral=newer, now_s=NOW_S + 61 * DAY_S),
        stranger=stranger,
        foreign_crl=simulated_collateral(other)["pck_crl"],
        expired_crl=case.collateral["pck_crl"],
        other_root_der=INTEL_SGX_ROOT_DER,
        pki=pki,
    )


def simulated_collateral(pki: SimulatedPki, **changes: Any) -> dict[str, Any]:
    """Return collateral of a simulated world; changes are fields of its specification."""
    fields: dict[str, Any] = {"issued_s": NOW_S - 3600}
    made: dict[str, Any] = json.loads(build_endorsements(pki, EndorsementSpec(**fields | changes)))
    return made


def _bodies(offset: int) -> Spoil:
    """Flip a bit at an offset within the signature section."""
    return lambda world: world.case.flipped(world.section + offset)


def _qe_report_offset(world: World) -> int:
    # Length, signature, attestation key; TDX quotes have another type and length before the QE report.
    return world.section + 4 + 128 + (6 if world.section == _V4_SECTION else 0)


def _exchange_chain(world: World) -> Case:
    ours, theirs = parse_quote(world.case.quote), parse_quote(world.stranger)
    old, new = ours.signature.certification_data, theirs.signature.certification_data
    head, _, _ = world.case.quote[: ours.size_bytes].partition(old)
    grown = bytearray(head + new)
    # Lengths from the inside out: the chain, the QE certification data (TDX), the signature section.
    positions = [len(head) - 4, world.section]
    if world.section == _V4_SECTION:
        positions.append(world.section + 4 + 128 + 2)
    for position in positions:
        length = int.from_bytes(grown[position : position + 4], "little") + len(new) - len(old)
        grown[position : position + 4] = length.to_bytes(4, "little")
    return world.case.bent(quote=bytes(grown))


def _edited_tcb_info(world: World) -> Case:
    text: str = world.case.collateral["tcb_info"]
    edited = text.replace('"tcbStatus":"OutOfDate"', '"tcbStatus":"UpToDate"')
    assert edited != text
    return world.case.with_collateral(tcb_info=edited)


def _edges(world: World) -> tuple[int, int]:
    found = world.case.endorsements()
    parts = (found.tcb_info, found.qe_identity, found.pck_crl, found.root_crl)
    return max(item.issued_s for item in parts), min(item.next_update_s for item in parts)


def _platform_as_signer(world: World) -> Case:
    """TCB info with a platform's chain; where the keys are ours, signed with the platform's key as well."""
    chain = parse_quote(world.case.quote).signature.certification_data.rstrip(b"\x00").decode()
    blocks = [
        block + "-----END CERTIFICATE-----\n" for block in chain.split("-----END CERTIFICATE-----")[:-1]
    ]
    pem = blocks[0].lstrip() + blocks[-1].lstrip()
    if world.pki is None:
        return world.case.with_collateral(tcb_info_issuer_chain=pem)
    spec = EndorsementSpec(issued_s=NOW_S - 3600)
    return world.case.bent(
        collateral=json.loads(build_endorsements(world.pki, spec, tcb_signer=(world.pki.pck, pem)))
    )


def _platform_signs_qe_identity(world: World) -> Case:
    """TCB info as it should be, the QE identity alone under a platform's certificate."""
    spoiled = _platform_as_signer(world).collateral
    if world.pki is None:
        chain = spoiled["tcb_info_issuer_chain"]
        return world.case.with_collateral(qe_identity_issuer_chain=chain)
    members = ("qe_identity", "qe_identity_signature", "qe_identity_issuer_chain")
    return world.case.with_collateral(**{name: spoiled[name] for name in members})


def _pck_by_the_root(world: World) -> Case:
    pki = world.keys
    pck = issue(PCK_NAME, issuer=pki.root, now_s=NOW_S, ca=False, sgx_extension=sgx_extension(pki.platform))
    report = EnclaveReportSpec(mr_enclave=bytes(range(32)), report_data=bytes(range(64)))
    chain = pck.pem() + pki.root.pem()
    return world.case.bent(quote=build_sgx_quote(dataclasses.replace(pki, pck=pck), report, chain_pem=chain))


def _certification_type(world: World) -> Case:
    """The same chain, announced as certification data of another type."""
    quote = parse_quote(world.case.quote)
    at = world.case.quote.index(quote.signature.certification_data) - 6
    return world.case.flipped(at)


def quoted_by(world: World, pki: SimulatedPki) -> Case:
    """Return the case with the quote of another platform or chain."""
    report = EnclaveReportSpec(mr_enclave=bytes(range(32)), report_data=bytes(range(64)))
    return world.case.bent(quote=build_sgx_quote(pki, report))


def with_pck_ca(world: World, pck_ca: Authority) -> Case:
    """Return the case with another PCK CA, which certifies the platform anew and signs its own CRL."""
    pki = world.keys
    pck = issue(PCK_NAME, issuer=pck_ca, now_s=NOW_S, ca=False, sgx_extension=sgx_extension(pki.platform))
    other = dataclasses.replace(pki, pck_ca=pck_ca, pck=pck)
    return quoted_by(world, other).bent(collateral=simulated_collateral(other))


def _pck_of_tomorrow(world: World) -> Case:
    pki = world.keys
    later_s = NOW_S + 2 * DAY_S
    pck = issue(
        PCK_NAME, issuer=pki.pck_ca, now_s=later_s, ca=False, sgx_extension=sgx_extension(pki.platform)
    )
    return quoted_by(world, dataclasses.replace(pki, pck=pck))


def _ca(world: World, *, name: str = PCK_CA_NAME, ca: bool = True, extension: bool = False) -> Case:
    pki = world.keys
    own = sgx_extension(pki.platform) if extension else None
    return with_pck_ca(world, issue(name, issuer=pki.root, now_s=NOW_S, ca=ca, sgx_extension=own))


def _ca_of_another_root(world: World) -> Case:
    """A PCK CA of the right name that a root of the same name has issued, and the pinned root above it."""
    pki, stranger = world.keys, create_pki(NOW_S)
    chain = stranger.pck.pem() + stranger.pck_ca.pem() + pki.root.pem()
    report = EnclaveReportSpec(mr_enclave=bytes(range(32)), report_data=bytes(range(64)))
    return world.case.bent(quote=build_sgx_quote(stranger, report, chain_pem=chain))


_SIGNED: Final = {
    part: (part, f"{part}_signature", f"{part}_issuer_chain") for part in ("tcb_info", "qe_identity")
}


def _old(part: str) -> Spoil:
    """One signed document of the older collateral among the newer."""
    return lambda world: world.later.with_collateral(
        **{name: world.case.collateral[name] for name in _SIGNED[part]}
    )


def _signed_tomorrow(part: str) -> Spoil:
    """One document under a signing certificate that is not in force yet."""

    def spoil(world: World) -> Case:
        pki = world.keys
        signer = issue(TCB_SIGNING_NAME, issuer=pki.root, now_s=NOW_S + 2 * DAY_S, ca=False)
        spec = EndorsementSpec(issued_s=NOW_S - 3600)
        chain = signer.pem() + pki.root.pem()
        made = json.loads(build_endorsements(pki, spec, tcb_signer=(signer, chain)))
        return world.case.with_collateral(**{name: made[name] for name in _SIGNED[part]})

    return spoil


def _signer_below_the_pck_ca(world: World) -> Case:
    pki = world.keys
    signer = issue(TCB_SIGNING_NAME, issuer=pki.pck_ca, now_s=NOW_S, ca=False)
    spec = EndorsementSpec(issued_s=NOW_S - 3600)
    chain = signer.pem() + pki.pck_ca.pem() + pki.root.pem()
    return world.case.bent(collateral=json.loads(build_endorsements(pki, spec, tcb_signer=(signer, chain))))


def crl_of(authority: Authority, *, name: Authority | None = None, lists: tuple[int, ...] = ()) -> str:
    """Return a CRL that one authority signs, perhaps in another's name, hexadecimal."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name((name or authority).certificate.subject)
        .last_update(utc(NOW_S - 3600))
        .next_update(utc(NOW_S + DAY_S))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    for serial in lists:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(utc(NOW_S - 3600))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER).hex()


def _simulated(**changes: Any) -> Spoil:
    return lambda world: world.case.bent(collateral=simulated_collateral(world.keys, **changes))


def _marked(document: str) -> Spoil:
    """The mark of one document as an earlier appraisal left it, one above what is shown now."""

    def spoil(world: World) -> Case:
        seen = world.case.appraise().marks
        raised = {name: number + 1 for name, number in seen.documents if name.startswith(document)}
        return world.case.bent(marks=seen.raised(raised))

    return spoil


def _td(status: str) -> Spoil:
    def spoil(world: World) -> Case:
        quote = build_tdx_quote(world.keys, TdReportSpec(mr_td=bytes(48), report_data=bytes(64)))
        collateral = simulated_collateral(world.keys, tee="tdx", tcb_status=status)
        return world.case.bent(quote=quote, collateral=collateral)

    return spoil


NEGATIVES: Final = (
    Negative(
        name="flip-in-the-report",
        says="one bit of the report is turned",
        check=CheckName.QUOTE_SIGNATURES,
        spoil=lambda world: world.case.flipped(REPORT_BYTE),
    ),
    Negative(
        name="flip-in-the-signature",
        says="one bit of the quote's signature is turned",
        check=CheckName.QUOTE_SIGNATURES,
        spoil=_bodies(4 + 10),
    ),
    Negative(
        name="flip-in-the-attestation-key",
        says="one bit of the attestation key is turned",
        check=CheckName.QUOTE_SIGNATURES,
        spoil=_bodies(4 + 64 + 10),
    ),
    Negative(
        name="flip-in-the-qe-report",
        says="one bit of the quoting enclave's report is turned",
        check=CheckName.QUOTE_SIGNATURES,
        spoil=lambda world: world.case.flipped(_qe_report_offset(world) + 70),
    ),
    Negative(
        name="flip-in-the-qe-report-signature",
        says="one bit of the PCK key's signature is turned",
        check=CheckName.QUOTE_SIGNATURES,
        spoil=lambda world: world.case.flipped(_qe_report_offset(world) + 384 + 10),
    ),
    Negative(
        name="flip-in-the-qe-authentication-data",
        says="one bit of what the QE report binds beside the attestation key is turned",
        check=CheckName.QUOTE_SIGNATURES,
        spoil=lambda world: world.case.flipped(_qe_report_offset(world) + 384 + 64 + 2 + 5),
    ),
    Negative(
        name="chain-of-another-platform",
        says="the PCK chain of another platform of the same family",
        check=CheckName.QUOTE_SIGNATURES,
        spoil=_exchange_chain,
    ),
    Negative(
        name="edited-tcb-info",
        says="`OutOfDate` rewritten to `UpToDate` in the TCB info",
        check=CheckName.ENDORSEMENT_SIGNATURES,
        spoil=_edited_tcb_info,
    ),
    Negative(
        name="pck-crl-missing",
        says="no CRL of the PCK CA",
        check=CheckName.ENDORSEMENTS_FORMAT,
        spoil=lambda world: world.case.with_collateral(pck_crl=None),
    ),
    Negative(
        name="root-crl-missing",
        says="no CRL of the root",
        check=CheckName.ENDORSEMENTS_FORMAT,
        spoil=lambda world: world.case.with_collateral(root_ca_crl=None),
    ),
    Negative(
        name="crl-corrupt",
        says="a CRL that is cut short",
        check=CheckName.ENDORSEMENTS_FORMAT,
        spoil=lambda world: world.case.with_collateral(pck_crl=world.case.collateral["pck_crl"][:-2]),
    ),
    Negative(
        name="crl-signature-corrupt",
        says="a CRL with one bit of its signature turned",
        check=CheckName.NOT_REVOKED,
        spoil=lambda world: world.case.with_collateral(
            pck_crl=world.case.collateral["pck_crl"][:-1]
            + format(int(world.case.collateral["pck_crl"][-1], 16) ^ 1, "x")
        ),
    ),
    Negative(
        name="crl-expired",
        says="a CRL that ran out, among current endorsements",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=lambda world: world.later.with_collateral(pck_crl=world.expired_crl),
    ),
    Negative(
        name="root-crl-expired",
        says="a CRL of the root that ran out, among current endorsements",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=lambda world: world.later.with_collateral(root_ca_crl=world.case.collateral["root_ca_crl"]),
    ),
    Negative(
        name="tcb-info-expired",
        says="TCB info that ran out, among current endorsements",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=_old("tcb_info"),
    ),
    Negative(
        name="qe-identity-expired",
        says="a QE identity that ran out, among current endorsements",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=_old("qe_identity"),
    ),
    Negative(
        name="tcb-info-signer-not-yet-valid",
        says="TCB info under a signing certificate that is not in force yet",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=_signed_tomorrow("tcb_info"),
        real=False,
    ),
    Negative(
        name="qe-identity-signer-not-yet-valid",
        says="a QE identity under a signing certificate that is not in force yet",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=_signed_tomorrow("qe_identity"),
        real=False,
    ),
    Negative(
        name="edited-qe-identity",
        says="a white space more in the QE identity",
        check=CheckName.ENDORSEMENT_SIGNATURES,
        spoil=lambda world: world.case.with_collateral(
            qe_identity=world.case.collateral["qe_identity"].replace('"version":', '"version": ')
        ),
    ),
    Negative(
        name="crl-of-another-ca",
        says="the CRL of another PCK CA",
        check=CheckName.NOT_REVOKED,
        spoil=lambda world: world.case.with_collateral(pck_crl=world.foreign_crl),
    ),
    Negative(
        name="crls-exchanged",
        says="the root's CRL in the place of the PCK CA's",
        check=CheckName.NOT_REVOKED,
        spoil=lambda world: world.case.with_collateral(pck_crl=world.case.collateral["root_ca_crl"]),
    ),
    Negative(
        name="before-the-window",
        says="a second before the last endorsement was issued",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=lambda world: world.case.bent(now_s=_edges(world)[0] - 1),
    ),
    Negative(
        name="after-the-window",
        says="a second after the first endorsement expired",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=lambda world: world.case.bent(now_s=_edges(world)[1] + 1),
    ),
    Negative(
        name="wrong-root",
        says="the root of the other trust domain",
        check=CheckName.SIGNING_CHAINS,
        spoil=lambda world: world.case.bent(root_der=world.other_root_der),
    ),
    Negative(
        name="debug",
        says="the debug bit is set",
        check=CheckName.DEBUG_DISABLED,
        # SGX: DEBUG in ATTRIBUTES; TDX: a bit of TUD in the TD attributes.
        spoil=lambda world: world.case.flipped(*((96, 1) if world.section == _V3_SECTION else (168, 0))),
    ),
    Negative(
        name="trailing-bytes",
        says="a byte that is not zero after the quote",
        check=CheckName.QUOTE_LENGTH,
        spoil=lambda world: world.case.bent(quote=world.case.quote + b"\x01"),
    ),
    Negative(
        name="truncated",
        says="the last byte of the quote is missing",
        check=CheckName.QUOTE_FORMAT,
        spoil=lambda world: world.case.bent(
            quote=world.case.quote[: parse_quote(world.case.quote).size_bytes - 1]
        ),
    ),
    Negative(
        name="platform-signs-tcb-info",
        says="TCB info under a platform's certificate (role confusion)",
        check=CheckName.SIGNING_CHAINS,
        spoil=_platform_as_signer,
    ),
    Negative(
        name="platform-signs-qe-identity",
        says="the QE identity under a platform's certificate (role confusion)",
        check=CheckName.SIGNING_CHAINS,
        spoil=_platform_signs_qe_identity,
    ),
    Negative(
        name="signer-below-the-pck-ca",
        says="TCB info under a certificate that the PCK CA issued (role confusion)",
        check=CheckName.SIGNING_CHAINS,
        spoil=_signer_below_the_pck_ca,
        real=False,
    ),
    Negative(
        name="pck-by-the-root",
        says="a PCK certificate issued by the root itself",
        check=CheckName.PCK_CHAIN,
        spoil=_pck_by_the_root,
        real=False,
    ),
    Negative(
        name="certification-type",
        says="the PCK chain announced as certification data of another type",
        check=CheckName.PCK_CHAIN,
        spoil=_certification_type,
    ),
    Negative(
        name="quote-below-another-root",
        says="a quote with a sound PCK chain of the same names below another root",
        check=CheckName.PCK_CHAIN,
        spoil=lambda world: quoted_by(world, create_pki(NOW_S)),
        real=False,
    ),
    Negative(
        name="pck-ca-of-another-root",
        says="a PCK CA that the pinned root did not issue, with the pinned root above it",
        check=CheckName.PCK_CHAIN,
        spoil=_ca_of_another_root,
        real=False,
    ),
    Negative(
        name="pck-ca-of-another-name",
        says="a PCK certificate issued by a CA of another name",
        check=CheckName.PCK_CHAIN,
        spoil=lambda world: _ca(world, name="Simulated SGX TLS CA"),
        real=False,
    ),
    Negative(
        name="pck-ca-that-is-no-ca",
        says="a PCK certificate issued by a certificate that is no CA's",
        check=CheckName.PCK_CHAIN,
        spoil=lambda world: _ca(world, ca=False),
        real=False,
    ),
    Negative(
        name="pck-ca-with-a-platform",
        says="a PCK CA whose certificate describes a platform",
        check=CheckName.PCK_CHAIN,
        spoil=lambda world: _ca(world, extension=True),
        real=False,
    ),
    Negative(
        name="pck-not-yet-valid",
        says="a PCK certificate that is not in force yet",
        check=CheckName.ENDORSEMENTS_CURRENT,
        spoil=_pck_of_tomorrow,
        real=False,
    ),
    Negative(
        name="another-chain-beside-the-quote",
        says="the collateral brings another platform's PCK chain",
        check=CheckName.PCK_CHAIN,
        spoil=lambda world: world.case.with_collateral(
            pck_certificate_chain=parse_quote(world.stranger)
            .signature.certification_data.rstrip(b"\x00")
            .decode()
        ),
    ),
    Negative(
        name="pce-id",
        says="TCB info about another PCE",
        check=CheckName.PCE_IDENTITY,
        spoil=_simulated(pce_id=b"\x00\x01"),
        real=False,
    ),
    Negative(
        name="fmspc",
        says="TCB info about another family of platforms",
        check=CheckName.DCAP_VERIFICATION,
        spoil=_simulated(fmspc=bytes.fromhex("ad7705fffffe")),
        real=False,
    ),
    Negative(
        name="pck-revoked",
        says="the PCK certificate is on its CA's CRL",
        check=CheckName.NOT_REVOKED,
        spoil=_simulated(revoked_pck=True),
        real=False,
    ),
    Negative(
        name="pck-ca-revoked",
        says="the PCK CA is on the root's CRL",
        check=CheckName.NOT_REVOKED,
        spoil=_simulated(revoked_pck_ca=True),
        real=False,
    ),
    Negative(
        name="tcb-signer-revoked",
        says="the TCB signer is on the root's CRL",
        check=CheckName.NOT_REVOKED,
        spoil=_simulated(revoked_tcb_signing=True),
        real=False,
    ),
    Negative(
        name="root-revoked",
        says="the root is on its own CRL",
        check=CheckName.NOT_REVOKED,
        spoil=lambda world: world.case.with_collateral(
            root_ca_crl=crl_of(world.keys.root, lists=(world.keys.root.certificate.serial_number,))
        ),
        real=False,
    ),
    Negative(
        name="crl-in-another-name",
        says="a CRL that the PCK CA's key signed in the root's name",
        check=CheckName.NOT_REVOKED,
        spoil=lambda world: world.case.with_collateral(
            pck_crl=crl_of(world.keys.pck_ca, name=world.keys.root)
        ),
        real=False,
    ),
    *(
        Negative(
            name=f"status-{status.lower()}",
            says=f"the platform is `{status}`",
            check=CheckName.TCB_STATUS,
            spoil=_simulated(tcb_status=status),
            real=False,
        )
        for status in (
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDateConfigurationNeeded",
        )
    ),
    Negative(
        name="status-outofdate",
        says="the platform is `OutOfDate` under newer TCB info",
        check=CheckName.TCB_STATUS,
        spoil=lambda world: (
            world.later
            if world.pki is None
            else world.case.bent(collateral=simulated_collateral(world.pki, tcb_status="OutOfDate"))
        ),
    ),
    *(
        Negative(
            name=f"status-{status.lower()}",
            says=f"the platform is `{status}`",
            check=CheckName.DCAP_VERIFICATION,
            spoil=_simulated(tcb_status=status),
            real=False,
        )
        for status in ("Revoked", "Splendid")
    ),
    *(
        Negative(
            name=f"td-status-{status.lower()}",
            says=f"the platform of a trust domain is `{status}`",
            check=CheckName.TCB_STATUS,
            spoil=_td(status),
            real=False,
        )
        for status in ("ConfigurationNeeded", "OutOfDate")
    ),
    Negative(
        name="evaluation-number-rolled-back",
        says="older TCB evaluation data than was seen before",
        check=CheckName.ROLLBACK,
        spoil=_marked("TCB info"),
    ),
    Negative(
        name="root-crl-rolled-back",
        says="an older CRL of the root than was seen before",
        check=CheckName.ROLLBACK,
        spoil=_marked("root CRL"),
    ),
    Negative(
        name="pck-crl-rolled-back",
        says="an older CRL of the PCK CA than was seen before",
        check=CheckName.ROLLBACK,
        spoil=_marked("PCK CRL"),
    ),
)


def table() -> str:
    """Return the table of ``docs/negatives.md``."""
    rows = ["| case | what is wrong | refused by | error | real bytes |", "|---|---|---|---|---|"]
    rows += [
        f"| `{item.name}` | {item.says} | `{item.check.value}` | `{item.code}` | {'yes' if item.real else 'no'} |"
        for item in NEGATIVES
    ]
    return "\n".join(rows)
