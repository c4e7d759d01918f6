# SPDX-License-Identifier: Apache-2.0
"""A peer for the second channel: any certificate, and a record of every byte that a client wrote to it."""

import contextlib
import hashlib
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from memory_appliance import DONE, MR_ENCLAVE, MemoryAppliance, pki

from adyton.edge import wall_clock_s
from adyton_attestation.simulation.pki import SimulatedPki
from adyton_attestation.simulation.quoting import EnclaveReportSpec, build_sgx_quote
from adyton_protocol import cbor
from adyton_protocol.ra_tls import (
    EXCHANGE_HEADER,
    LEGACY_QUOTE_OID,
    TAGGED_EVIDENCE_OID,
    claims_report_data,
    exchange_header,
    public_key_claims,
    public_key_report_data,
)
from adyton_protocol.receipt import RECEIPT_HEADER, ReceiptBuilder
from adyton_protocol.sse import comment_of, receipt_comment

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
UNASKED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


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


@dataclass(kw_only=True)
class Answering:
    """Answers as an enclave does: with a receipt about the request, the answer and an exchange of its own.

    Attributes:
        appliance: With the epoch that signs.
        body: What the answer says, without the end of a stream.
        streamed: Whether it is a stream, whose receipt is a comment before its end.
        headers: What the answer's header says instead; None leaves a line out.
        sends: What is sent instead of what the receipt is about.
        about: What the receipt is about instead of the request.
    """

    appliance: MemoryAppliance
    body: bytes = b"ok"
    streamed: bool = False
    headers: dict[str, str | None] = field(default_factory=dict)
    sends: bytes | None = None
    about: bytes | None = None

    def __call__(self, request: bytes) -> bytes:
        """Answer."""
        epoch, exchange_id, secret = self.appliance.epoch, secrets.token_bytes(32), secrets.token_bytes(32)
        builder = ReceiptBuilder(
            receipt_id="rcpt-" + secrets.token_hex(8),
            keyset_digest=epoch.keyset.digest(),
            receipt_secret=secret,
            enc=exchange_id,
            request_body=request if self.about is None else self.about,
            endpoint="/v1/chat/completions",
        )
        builder.response_data(self.body)
        receipt = self.appliance.finish(builder)
        sent = self.body if self.sends is None else self.sends
        if self.streamed:
            comment = receipt_comment(receipt.to_bytes()) if self.appliance.with_receipt else b""
            sent += comment_of(16) + comment + DONE
        headers: dict[str, str | None] = {
            "content-type": "text/event-stream" if self.streamed else "text/plain",
            "content-length": str(len(sent)),
            "x-aci-keyset-digest": epoch.keyset.digest(),
            EXCHANGE_HEADER: exchange_header(exchange_id, secret).decode(),
            RECEIPT_HEADER: None if self.streamed else receipt.header_value(),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | self.headers).items() if value)
        return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + sent


@dataclass
class Recorder:
    """What reached the peer: handshakes that ended, and bytes after them."""

    url: str
    context: ssl.SSLContext
    answer: Callable[[bytes], bytes] = lambda _body: UNASKED
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
                    request = b""
                    while data := tls.recv(65536):
                        recorder.received += data
                        request += data
                        if request.endswith(b"}"):
                            tls.sendall(recorder.answer(request.partition(b"\r\n\r\n")[2]))
                            request = b""

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
