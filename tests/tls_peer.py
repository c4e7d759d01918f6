# SPDX-License-Identifier: Apache-2.0
"""A peer for the second channel: any certificate, and a record of every byte that a client wrote to it."""

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from memory_appliance import MR_ENCLAVE, pki

from adyton.edge import wall_clock_s
from adyton_attestation.simulation.pki import SimulatedPki
from adyton_attestation.simulation.quoting import EnclaveReportSpec, build_sgx_quote
from adyton_protocol import cbor
from adyton_protocol.ra_tls import (
    LEGACY_QUOTE_OID,
    TAGGED_EVIDENCE_OID,
    claims_report_data,
    public_key_claims,
    public_key_report_data,
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


@dataclass(frozen=True, kw_only=True)
class Enclave:
    """Something that quotes whatever a test wants quoted."""

    mr_enclave: bytes = MR_ENCLAVE
    platform: SimulatedPki = field(default_factory=pki)
    tee_type: str = "simulated"

    def quote(self, report_data: bytes) -> bytes:
        """Quote."""
        spec = EnclaveReportSpec(
            mr_enclave=self.mr_enclave, report_data=report_data, cpu_svn=self.platform.platform.cpu_svn
        )
        return build_sgx_quote(self.platform, spec)


def spki_of(key: PrivateKey) -> bytes:
    """Its SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def evidence_over(enclave: Enclave, claims: bytes) -> bytes:
    """Tagged evidence whose quote binds any claims."""
    quote = enclave.quote(hashlib.sha256(claims).digest() + bytes(32))
    return cbor.encode(cbor.Tagged(60_000, [quote, claims]))


def genuine_extensions(key: PrivateKey, enclave: Enclave | None = None) -> dict[str, bytes]:
    """Both extensions, as an enclave writes them for its own key."""
    enclave = Enclave() if enclave is None else enclave
    spki = spki_of(key)
    assert claims_report_data(spki) == hashlib.sha256(public_key_claims(spki)).digest() + bytes(32)
    return {
        LEGACY_QUOTE_OID: enclave.quote(public_key_report_data(spki)),
        TAGGED_EVIDENCE_OID: evidence_over(enclave, public_key_claims(spki)),
    }


def certificate(
    key: PrivateKey, extensions: dict[str, bytes], *, from_s: int = -60, to_s: int = 900
) -> x509.Certificate:
    """A self-signed certificate; times count from now."""
    now = datetime.fromtimestamp(wall_clock_s(), tz=UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + timedelta(seconds=from_s))
        .not_valid_after(now + timedelta(seconds=to_s))
    )
    for oid, value in extensions.items():
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


@dataclass
class Recorder:
    """What reached the peer: handshakes that ended, and bytes after them."""

    url: str
    context: ssl.SSLContext
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0

    def show(self, key: PrivateKey, shown: x509.Certificate, directory: Path) -> None:
        """Authenticate the next connections with this."""
        path = directory / "peer.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(shown.public_bytes(serialization.Encoding.PEM) + private)
        self.context.load_cert_chain(path)


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """Answer every connection on a loopback port, and record what it said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        recorder = Recorder(f"https://127.0.0.1:{listener.getsockname()[1]}", context)
        serving: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5)
                with context.wrap_socket(connection, server_side=True) as tls:
                    while data := tls.recv(65536):
                        recorder.received += data
                        if recorder.received.endswith(b"}"):
                            tls.sendall(ANSWER)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                recorder.connections += 1
                serving.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                serving[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield recorder
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            accepting.join()
            for thread in serving:
                thread.join()
