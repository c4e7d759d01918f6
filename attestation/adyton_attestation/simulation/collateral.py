# SPDX-License-Identifier: Apache-2.0
"""The simulated provisioning certification service: CRLs, TCB info version 3 and QE identity version 2, signed.

The result has the JSON shape of ``QuoteCollateralV3``, with CRLs and signatures in hexadecimal, as a caching
service would hand it out. Every property that an appraisal looks at can be set, so that each check can be made
to fail alone.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from adyton_attestation.simulation.pki import DAY_S, Authority, Platform, QuotingEnclave, SimulatedPki, utc

EVALUATION_NUMBER: Final = 20
LIFE_S: Final = 30 * DAY_S
BACKDATING_S: Final = 3600
TCB_DATE: Final = "2026-02-11T00:00:00Z"

TDX_MODULE_SVN: Final = 5
TDX_MODULE_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementSpec:
    """What the simulated service shall say.

    Attributes:
        tee: Which TCB info and QE identity to issue.
        issued_s: Unix time of issue.
        life_s: Seconds from issue to next update.
        tcb_status: Status of the level that the platform matches.
        advisory_ids: Advisories of that level.
        tcb_date: RFC 3339 date of that level.
        qe_status: Status of the QE identity's level.
        qe_tcb_date: RFC 3339 date of that level.
        evaluation_number: tcbEvaluationDataNumber of the TCB info.
        qe_evaluation_number: The same of the QE identity; None means equal.
        crl_number: CRL number of both CRLs.
        pce_id: Two bytes, the PCE that the TCB info is about; None means the platform's.
        fmspc: Six bytes; None means the platform's.
        revoked_pck: Whether the PCK certificate is on its CA's CRL.
        revoked_pck_ca: Whether the PCK CA is on the root's CRL.
        revoked_tcb_signing: Whether the TCB signer is on the root's CRL.
    """

    tee: Literal["sgx", "tdx"] = "sgx"
    issued_s: int
    life_s: int = LIFE_S
    tcb_status: str = "UpToDate"
    advisory_ids: tuple[str, ...] = ()
    tcb_date: str = TCB_DATE
    qe_status: str = "UpToDate"
    qe_tcb_date: str = TCB_DATE
    evaluation_number: int = EVALUATION_NUMBER
    qe_evaluation_number: int | None = None
    crl_number: int = 1
    pce_id: bytes | None = None
    fmspc: bytes | None = None
    revoked_pck: bool = False
    revoked_pck_ca: bool = False
    revoked_tcb_signing: bool = False


def build_endorsements(
    pki: SimulatedPki, spec: EndorsementSpec, *, tcb_signer: tuple[Authority, str] | None = None
) -> bytes:
    """Issue collateral.

    Args:
        pki: Who issues.
        spec: What to say.
        tcb_signer: Another signer for TCB info and QE identity, with its PEM chain; for tests of role separation.

    Returns:
        ``QuoteCollateralV3`` JSON.
    """
    signer, chain = tcb_signer or (pki.tcb_signing, pki.tcb_signing.pem() + pki.root.pem())
    tcb_info = _dumps(_tcb_info(pki.platform, spec))
    qe_identity = _dumps(_qe_identity(pki.platform.qe, spec))
    revoked_by_root = [
        authority.certificate.serial_number
        for authority, revoked in (
            (pki.pck_ca, spec.revoked_pck_ca),
            (pki.tcb_signing, spec.revoked_tcb_signing),
        )
        if revoked
    ]
    revoked_by_ca = [pki.pck.certificate.serial_number] if spec.revoked_pck else []
    document: dict[str, object] = {
        "pck_crl_issuer_chain": pki.pck_ca.pem() + pki.root.pem(),
        "root_ca_crl": _crl(pki.root, spec, revoked_by_root).hex(),
        "pck_crl": _crl(pki.pck_ca, spec, revoked_by_ca).hex(),
        "tcb_info_issuer_chain": chain,
        "tcb_info": tcb_info,
        "tcb_info_signature": signer.sign(tcb_info.encode()).hex(),
        "qe_identity_issuer_chain": chain,
        "qe_identity": qe_identity,
        "qe_identity_signature": signer.sign(qe_identity.encode()).hex(),
    }
    return _dumps(document).encode()


def _crl(issuer: Authority, spec: EndorsementSpec, serials: list[int]) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(utc(spec.issued_s))
        .next_update(utc(spec.issued_s + spec.life_s))
        .add_extension(x509.CRLNumber(spec.crl_number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(utc(spec.issued_s))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _tcb_info(platform: Platform, spec: EndorsementSpec) -> dict[str, object]:
    def level(
        cpu_svn: bytes, pce_svn: int, date: str, status: str, advisories: list[str]
    ) -> dict[str, object]:
        tcb: dict[str, object] = {"sgxtcbcomponents": [{"svn": svn} for svn in cpu_svn], "pcesvn": pce_svn}
        if spec.tee == "tdx":
            tcb["tdxtcbcomponents"] = [{"svn": TDX_MODULE_SVN}] + [{"svn": 0}] * 15
        return {"tcb": tcb, "tcbDate": date, "tcbStatus": status, "advisoryIDs": advisories}

    pce_id = platform.pce_id if spec.pce_id is None else spec.pce_id
    fmspc = platform.fmspc if spec.fmspc is None else spec.fmspc
    document: dict[str, object] = {
        "id": spec.tee.upper(),
        "version": 3,
        "issueDate": _rfc3339(spec.issued_s),
        "nextUpdate": _rfc3339(spec.issued_s + spec.life_s),
        "fmspc": fmspc.hex().upper(),
        "pceId": pce_id.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": spec.evaluation_number,
    }
    if spec.tee == "tdx":
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        module_level = {"tcb": {"isvsvn": TDX_MODULE_SVN}, "tcbDate": TCB_DATE, "tcbStatus": "UpToDate"}
        document["tdxModule"] = module
        document["tdxModuleIdentities"] = [
            {"id": f"TDX_{TDX_MODULE_VERSION:02d}", **module, "tcbLevels": [module_level]}
        ]
    document["tcbLevels"] = [
        level(platform.cpu_svn, platform.pce_svn, spec.tcb_date, spec.tcb_status, list(spec.advisory_ids)),
        level(bytes(16), 0, "2018-01-04T00:00:00Z", "OutOfDate", []),
    ]
    return document


def _qe_identity(qe: QuotingEnclave, spec: EndorsementSpec) -> dict[str, object]:
    number = spec.evaluation_number if spec.qe_evaluation_number is None else spec.qe_evaluation_number
    return {
        "id": "QE" if spec.tee == "sgx" else "TD_QE",
        "version": 2,
        "issueDate": _rfc3339(spec.issued_s),
        "nextUpdate": _rfc3339(spec.issued_s + spec.life_s),
        "tcbEvaluationDataNumber": number,
        "miscselect": qe.misc_select.to_bytes(4, "little").hex().upper(),
        "miscselectMask": "FFFFFFFF",
        # SECURITY: the debug bit stays under the mask, as in Intel's own identities.
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
        "mrsigner": qe.mr_signer.hex().upper(),
        "isvprodid": qe.isv_prod_id,
        "tcbLevels": [
            {"tcb": {"isvsvn": qe.isv_svn}, "tcbDate": spec.qe_tcb_date, "tcbStatus": spec.qe_status}
        ],
    }


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dumps(document: dict[str, object]) -> str:
    return json.dumps(document, separators=(",", ":"))
