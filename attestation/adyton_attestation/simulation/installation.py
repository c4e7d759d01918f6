# SPDX-License-Identifier: Apache-2.0
"""The files of one simulated installation: keys made once, collateral renewed in time, a policy on demand.

::

    DIR/root.pem                 the simulated root: what a client pins
    DIR/collateral.json          endorsements, as a caching service would serve them
    DIR/policy.toml              the appraisal policy for the measured files
    DIR/platform/pck_key.pem     the platform's private key: the simulated hardware        mode 0600
    DIR/platform/pck_chain.pem   PCK certificate, PCK CA, root
    DIR/platform/platform.json   fmspc, ppid, cpusvn, pcesvn, pceid, and qe {mrenclave, mrsigner, miscselect,
                                 attributes, isvprodid, isvsvn}; byte strings in hexadecimal
    DIR/pki/*.pem                the other authorities, to renew collateral                 keys mode 0600

Every file is written beside its place and renamed into it, so that a reader sees the old one or the new one.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adyton_attestation.certificates import der_of, issued_by
from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import (
    DAY_S,
    Authority,
    Platform,
    QuotingEnclave,
    SimulatedPki,
    create_pki,
)
from adyton_protocol.errors import ConfigError, EndorsementError

RENEW_AFTER_S: Final = 7 * DAY_S
"""Collateral lives 30 days and is renewed after seven, so that the age cap of a policy never bites."""
RENEW_PKI_BEFORE_S: Final = 90 * DAY_S
_AUTHORITIES: Final = ("root", "pck_ca", "tcb_signing")
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
_COLLATERAL_BACKDATING_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A directory with a usable PKI and current collateral.

    Attributes:
        directory: Where.
        pki: The keys.
        endorsements: The collateral, parsed.
        created: Whether the PKI is new.
        renewed: Whether the collateral is new.
    """

    directory: Path
    pki: SimulatedPki
    endorsements: Endorsements
    created: bool
    renewed: bool


def ensure_installation(directory: Path, now_s: int) -> Installation:
    """Make the installation usable, changing no more than necessary.

    Raises:
        ConfigError: The directory cannot be written.
    """
    try:
        for part in (directory, directory / "pki", directory / "platform"):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        pki = _load(directory, now_s)
        created = pki is None
        if pki is None:
            pki = create_pki(now_s)
            _store(directory, pki)
        endorsements = None if created else _current_collateral(directory, pki, now_s)
        renewed = endorsements is None
        if endorsements is None:
            data = build_endorsements(
                pki,
                EndorsementSpec(
                    issued_s=now_s - _COLLATERAL_BACKDATING_S,
                    crl_number=1 if created else _next_number(directory),
                ),
            )
            write_file(directory / "collateral.json", data)
            endorsements = parse_endorsements(data)
    except OSError as cause:
        raise ConfigError(f"the simulation directory {directory} cannot be used: {cause.strerror}") from cause
    return Installation(
        directory=directory, pki=pki, endorsements=endorsements, created=created, renewed=renewed
    )


def write_file(path: Path, data: bytes, mode: int = _PUBLIC) -> None:
    """Write a file in one step; mode 0600 holds from the first byte on.

    Raises:
        OSError: It cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _store(directory: Path, pki: SimulatedPki) -> None:
    for name, authority in zip(_AUTHORITIES, (pki.root, pki.pck_ca, pki.tcb_signing), strict=True):
        write_file(directory / "pki" / f"{name}_key.pem", authority.key_pem(), _PRIVATE)
        write_file(directory / "pki" / f"{name}.pem", authority.pem().encode())
    platform, qe = pki.platform, pki.platform.qe
    facts = {
        "fmspc": platform.fmspc.hex(),
        "ppid": platform.ppid.hex(),
        "cpusvn": platform.cpu_svn.hex(),
        "pcesvn": platform.pce_svn,
        "pceid": platform.pce_id.hex(),
        "qe": {
            "mrenclave": qe.mr_enclave.hex(),
            "mrsigner": qe.mr_signer.hex(),
            "miscselect": qe.misc_select.to_bytes(4, "little").hex(),
            "attributes": qe.attributes.hex(),
            "isvprodid": qe.isv_prod_id,
            "isvsvn": qe.isv_svn,
        },
    }
    write_file(directory / "platform" / "pck_key.pem", pki.pck.key_pem(), _PRIVATE)
    write_file(directory / "platform" / "pck_chain.pem", pki.pck_chain_pem().encode())
    write_file(directory / "platform" / "platform.json", json.dumps(facts, indent=2).encode() + b"\n")
    # Last, because its presence says that everything else is there.
    write_file(directory / "root.pem", pki.root.pem().encode())


def _load(directory: Path, now_s: int) -> SimulatedPki | None:
    """Return the stored PKI, or None when it is missing, damaged or about to expire."""
    try:
        root, pck_ca, tcb_signing = (
            _authority(directory / "pki" / f"{name}_key.pem", directory / "pki" / f"{name}.pem")
            for name in _AUTHORITIES
        )
        pck = _authority(directory / "platform" / "pck_key.pem", directory / "platform" / "pck_chain.pem")
        platform = _platform(json.loads((directory / "platform" / "platform.json").read_bytes()))
        pinned = x509.load_pem_x509_certificate((directory / "root.pem").read_bytes())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    pki = SimulatedPki(root=root, pck_ca=pck_ca, tcb_signing=tcb_signing, pck=pck, platform=platform)
    sound = (
        der_of(pinned) == root.der()
        and issued_by(pck_ca.certificate, root.certificate)
        and issued_by(tcb_signing.certificate, root.certificate)
        and issued_by(pck.certificate, pck_ca.certificate)
    )
    return pki if sound and _in_force(root.certificate, now_s) else None


def _in_force(certificate: x509.Certificate, now_s: int) -> bool:
    first_s = int(certificate.not_valid_before_utc.timestamp())
    last_s = int(certificate.not_valid_after_utc.timestamp())
    return first_s <= now_s <= last_s - RENEW_PKI_BEFORE_S


def _authority(key_path: Path, certificate_path: Path) -> Authority:
    key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("a key without its certificate")
    return Authority(key=key, certificate=certificate)


def _platform(facts: dict[str, object]) -> Platform:
    qe = facts["qe"]
    if not isinstance(qe, dict):
        raise TypeError("qe")
    return Platform(
        fmspc=bytes.fromhex(str(facts["fmspc"])),
        ppid=bytes.fromhex(str(facts["ppid"])),
        cpu_svn=bytes.fromhex(str(facts["cpusvn"])),
        pce_svn=int(str(facts["pcesvn"])),
        pce_id=bytes.fromhex(str(facts["pceid"])),
        qe=QuotingEnclave(
            mr_enclave=bytes.fromhex(qe["mrenclave"]),
            mr_signer=bytes.fromhex(qe["mrsigner"]),
            misc_select=int.from_bytes(bytes.fromhex(qe["miscselect"]), "little"),
            attributes=bytes.fromhex(qe["attributes"]),
            isv_prod_id=int(qe["isvprodid"]),
            isv_svn=int(qe["isvsvn"]),
        ),
    )


def _current_collateral(directory: Path, pki: SimulatedPki, now_s: int) -> Endorsements | None:
    try:
        endorsements = parse_endorsements((directory / "collateral.json").read_bytes())
    except (FileNotFoundError, EndorsementError):
        return None
    issued_s = endorsements.tcb_info.issued_s
    fresh = issued_s <= now_s < issued_s + RENEW_AFTER_S
    ours = der_of(endorsements.tcb_info.chain[-1]) == pki.root.der()
    return endorsements if fresh and ours else None


def _next_number(directory: Path) -> int:
    """CRL numbers only rise, or a client's high-water marks would refuse the renewed collateral."""
    try:
        return parse_endorsements((directory / "collateral.json").read_bytes()).root_crl.number + 1
    except (FileNotFoundError, EndorsementError):
        return 1
