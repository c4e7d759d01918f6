# SPDX-License-Identifier: Apache-2.0
"""A laboratory: one simulated PKI, and evidence, endorsements and policies that can be bent one at a time."""

import dataclasses
import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import pytest

from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.policy import AppraisalPolicy, EnrolledPlatform, Identity, TcbPolicy
from adyton_attestation.simulation import SimulatedAttestationWarning, SimulatedResult, SimulatedVerifier
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import PCK_CA_NAME, SimulatedPki, create_pki
from adyton_attestation.simulation.quoting import EnclaveReportSpec, build_sgx_quote
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AttestationError
from adyton_protocol.hpke import KemPrivateKey
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.keyset import Keyset, KeysetExtension, ModelIdentity, PublicKeyEntry
from adyton_protocol.report import AttestationReport
from adyton_protocol.statement import report_data
from adyton_protocol.suite import Kem

NOW_S = 1_790_000_000
CHALLENGE = "5a" * 32
MR_ENCLAVE = bytes(range(32))
CONFIGURATION = Digest("sha256:" + "c0" * 32)
MODEL = ModelIdentity(name="abacus", identity=Digest("sha256:" + "ab" * 32))


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Everything genuine, with a knob for each thing that can be wrong."""

    pki: SimulatedPki
    keyset: Keyset
    now_s: int = NOW_S
    challenge: str = CHALLENGE

    def quote(self, **changes: Any) -> bytes:
        """Quote the keyset and the challenge; changes are fields of the enclave report."""
        fields: dict[str, Any] = {
            "mr_enclave": MR_ENCLAVE,
            "report_data": report_data(self.keyset.digest(), self.challenge),
        }
        return build_sgx_quote(self.pki, EnclaveReportSpec(**fields | changes))

    def report(self, quote: bytes | None = None, **changes: Any) -> AttestationReport:
        """Return the report; changes are its members."""
        members: dict[str, Any] = {
            "tee_type": "simulated",
            "quote": self.quote() if quote is None else quote,
            "keyset": self.keyset,
            "nonce": self.challenge,
        }
        return AttestationReport(**members | changes)

    def collateral(self, **changes: Any) -> bytes:
        """Return collateral as JSON; changes are fields of the specification."""
        fields: dict[str, Any] = {"issued_s": self.now_s - 3600}
        return build_endorsements(self.pki, EndorsementSpec(**fields | changes))

    def endorsements(self, **changes: Any) -> Endorsements:
        """Return parsed collateral."""
        return parse_endorsements(self.collateral(**changes))

    def policy(self, **changes: Any) -> AppraisalPolicy:
        """Return a policy that accepts exactly this evidence, without any relaxation."""
        fields: dict[str, Any] = {
            "name": "laboratory",
            "identity": Identity(mr_enclaves=frozenset({MR_ENCLAVE})),
            "tcb": TcbPolicy(),
            "platforms": (
                EnrolledPlatform(
                    ppid=self.pki.platform.ppid,
                    platform_instance_id=self.pki.platform.ppid,
                    custodian="us",
                    place="bench",
                ),
            ),
            "configurations": frozenset({CONFIGURATION}),
            "models": ((MODEL.name, frozenset({MODEL.identity})),),
        }
        return AppraisalPolicy(**fields | changes)

    def marks(self, **numbers: int) -> HighWaterMarks:
        """Return marks by kind of document: ``tcb_info``, ``qe_identity``, ``root_crl``, ``pck_crl``."""
        root = f"below {hashlib.sha256(self.pki.root.der()).hexdigest()[:16]}"
        names = {
            "tcb_info": f"TCB info of sgx {self.pki.platform.fmspc.hex()} {root}",
            "qe_identity": f"QE identity of sgx {root}",
            "root_crl": f"root CRL {root}",
            "pck_crl": f"PCK CRL of {PCK_CA_NAME} {root}",
        }
        return NO_MARKS.raised({names[kind]: number for kind, number in numbers.items()})

    def appraise(
        self,
        report: AttestationReport | None = None,
        endorsements: Endorsements | None = None,
        policy: AppraisalPolicy | None = None,
        *,
        challenge: str | None = None,
        now_s: int | None = None,
        root_der: bytes | None = None,
        marks: HighWaterMarks = NO_MARKS,
        releases: bytes | None = None,
    ) -> SimulatedResult:
        """Appraise; whatever is left out is genuine."""
        verifier = SimulatedVerifier(policy or self.policy(), root_der or self.pki.root.der())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SimulatedAttestationWarning)
            return verifier.appraise(
                report or self.report(),
                endorsements or self.endorsements(),
                challenge=challenge or self.challenge,
                now_s=self.now_s if now_s is None else now_s,
                marks=marks,
                releases=releases,
            )

    def refusal(self, *args: Any, **kwargs: Any) -> AttestationError:
        """Appraise what must be refused, and return the error."""
        with pytest.raises(AttestationError) as caught:
            self.appraise(*args, **kwargs)
        return caught.value

    def with_keyset(self, **changes: Any) -> Keyset:
        """Return the keyset with other members."""
        names = [item.name for item in dataclasses.fields(Keyset) if item.init]
        return Keyset(**{name: getattr(self.keyset, name) for name in names} | changes)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """One laboratory for all tests; nothing in it changes."""
    configs = (
        KeyConfig.of(1, KemPrivateKey.generate(Kem.X_WING)),
        KeyConfig.of(2, KemPrivateKey.generate(Kem.X25519)),
    )
    keyset = Keyset(
        subject="laboratory",
        not_after=NOW_S + 900,
        receipt_signing_keys=(PublicKeyEntry.ed25519("receipts", bytes(range(32))),),
        e2ee_public_keys=(PublicKeyEntry.ohttp("sealing", configs),),
        extension=KeysetExtension(
            epoch=3,
            previous_keyset_digest=None,
            configuration_digest=CONFIGURATION,
            models=(MODEL,),
        ),
    )
    return Lab(pki=create_pki(NOW_S), keyset=keyset)
