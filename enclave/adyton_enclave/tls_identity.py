# SPDX-License-Identifier: Apache-2.0
"""The enclave's TLS key and the certificate that its evidence makes of it (RA-TLS, as Gramine writes it).

One key per epoch, listed in that epoch's keyset, so that the challenge's quote speaks for it too. The certificate holds
two quotes, over the hash of the key and over claims about it; both are computed here from our own key and nothing else.
"""

import hashlib
import os
import secrets
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from adyton_enclave.attester import Attester
from adyton_protocol.ra_tls import (
    LEGACY_QUOTE_OID,
    TAGGED_EVIDENCE_OID,
    claims_report_data,
    public_key_report_data,
    tagged_evidence,
)

_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Adyton enclave")])
"""Means nothing; a certificate has to have one."""
_SKEW: Final = timedelta(minutes=5)
"""How long before its making a certificate is in force, for clients whose clocks are behind."""
_PASSWORD_BYTES: Final = 32


class TlsKey:
    """A P-256 key that authenticates TLS connections, and nothing else. It belongs to one epoch."""

    def __init__(self) -> None:
        self._private_key = ec.generate_private_key(ec.SECP256R1())
        self.spki: Final = self._private_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        self.spki_sha256: Final = hashlib.sha256(self.spki).hexdigest()

    def certificate(self, attester: Attester, *, made_at_s: int, not_after_s: int) -> bytes:
        """Make the certificate of this key, with evidence; blocks for two quotes.

        Args:
            attester: Quotes.
            made_at_s: Unix time, the host's clock.
            not_after_s: Last second of the certificate.

        Returns:
            DER.

        Raises:
            AttestationError: The platform gave no quote.
        """
        legacy = attester.quote(public_key_report_data(self.spki))
        evidence = tagged_evidence(attester.quote(claims_report_data(self.spki)), self.spki)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_NAME)
            .issuer_name(_NAME)
            .public_key(self._private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_utc(made_at_s) - _SKEW)
            .not_valid_after(_utc(not_after_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        for oid, value in ((LEGACY_QUOTE_OID, legacy), (TAGGED_EVIDENCE_OID, evidence)):
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._private_key, hashes.SHA256()).public_bytes(Encoding.DER)

    def install(self, context: ssl.SSLContext, certificate: bytes, directory: Path) -> None:
        """Have a TLS context authenticate new connections with this key.

        The library takes keys from files only, and Gramine has no anonymous ones.

        SECURITY: the file is encrypted under a password that was drawn for it and is kept nowhere, and is removed at
        once; whatever lies under the directory, the key does not leave the enclave. A file that is exchanged under way
        can only install a key that no evidence speaks for, which clients refuse.

        Args:
            context: Of the server.
            certificate: Of this key, DER.
            directory: Where to write; in an enclave a directory in its own memory.
        """
        password = secrets.token_hex(_PASSWORD_BYTES).encode("ascii")
        pem = self._private_key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)
        )
        chain = x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"tls-{secrets.token_hex(8)}.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(chain + pem)
            context.load_cert_chain(path, password=password)
        finally:
            path.unlink(missing_ok=True)


def server_context() -> ssl.SSLContext:
    """Make the server's TLS context: TLS 1.3, no resumption, no early data; it has no key yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # SECURITY: a resumed connection shows no certificate, and so would be past its appraisal.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    return context


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
