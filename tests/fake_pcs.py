# SPDX-License-Identifier: Apache-2.0
"""A certification service on loopback, in the wire format of Intel's or of a caching one, over a simulated PKI.

Speaks HTTP on a real socket, so that clients use what they use for Intel's. A test may replace any answer, or take the
whole service away and bring it back.
"""

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

from adyton_attestation.certificates import trust_anchor
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import SimulatedPki
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.fetching import Dial, Patience
from adyton_attestation.sources.pcs import STANDARD, CertificationService, Channel

Tee = Literal["sgx", "tdx"]
Style = Literal["pcs", "pccs"]


@dataclass(kw_only=True)
class Answer:
    """One HTTP answer, byte for byte.

    ``claimed_bytes`` is the Content-Length to state instead of the true one.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    claimed_bytes: int | None = None


Bend = Callable[[str, Answer], Answer]
"""Gets the last part of the path (``tcb``, ``identity``, ``pckcrl``, ``rootcacrl``) and the true answer."""


@dataclass(kw_only=True)
class FakePcs:
    """A service and what it says.

    Attributes:
        pki: Whose endorsements it serves.
        spec: What they say; its TEE is chosen by the question.
        style: ``pcs`` serves lists as DER, ``pccs`` in hexadecimal, and the root's at ``/rootcacrl``.
        bend: Replaces answers.
        asked: Every question, path and query.
        url: Where it listens.
    """

    pki: SimulatedPki
    spec: EndorsementSpec
    style: Style = "pcs"
    bend: Bend = lambda _, answer: answer
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, target: str) -> Answer:
        """Answer one question."""
        self.asked.append(target)
        parts = urlsplit(target)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        last = parts.path.rpartition("/")[2]
        return self.bend(last, self._true_answer(parts.path, last, asked))

    def _true_answer(self, path: str, last: str, asked: dict[str, str]) -> Answer:
        tee: Tee = "tdx" if path.startswith("/tdx/") else "sgx"
        document = self.collateral(tee)
        if last == "tcb" and asked["fmspc"] == self.pki.platform.fmspc.hex().upper():
            return _signed(document, "tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain")
        if last == "identity":
            return _signed(document, "qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain")
        if last == "pckcrl" and asked["ca"] == "platform":
            chain = {"SGX-PCK-CRL-Issuer-Chain": quote(document["pck_crl_issuer_chain"])}
            return Answer(headers=chain, body=self._list(document["pck_crl"]))
        if last in {"rootcacrl", "IntelSGXRootCA.der"}:
            return Answer(body=self._list(document["root_ca_crl"]))
        return Answer(status=404)

    def collateral(self, tee: Tee = "sgx") -> dict[str, str]:
        """The set that it serves."""
        spec = {name: getattr(self.spec, name) for name in EndorsementSpec.__slots__} | {"tee": tee}
        document: dict[str, str] = json.loads(build_endorsements(self.pki, EndorsementSpec(**spec)))
        return document

    def _list(self, encoded: str) -> bytes:
        return encoded.encode() if self.style == "pccs" else bytes.fromhex(encoded)

    def family(self, tee: Tee = "sgx") -> PlatformFamily:
        """The family of its one platform."""
        return PlatformFamily(tee=tee, fmspc=self.pki.platform.fmspc, ca="platform")

    @property
    def anchor(self):
        """The root that it stands below."""
        return trust_anchor(self.pki.root.der())

    def service(self, dial: Dial | None = None, channel: Channel = STANDARD) -> CertificationService:
        """The client under test, pointed at this service."""
        return CertificationService(
            impatient() if dial is None else dial,
            name="the service",
            base_url=self.url,
            root_crl_url=None if self.style == "pccs" else f"{self.url}/IntelSGXRootCA.der",
            channel=channel,
        )


def _signed(document: dict[str, str], part: str, name: str, header: str) -> Answer:
    body = f'{{"{name}":{document[part]},"signature":"{document[f"{part}_signature"]}"}}'
    return Answer(
        headers={header: quote(document[f"{part}_issuer_chain"]), "content-type": "application/json"},
        body=body.encode(),
    )


class Waits:
    """Pauses that take no time and are remembered."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.now_s = 0.0

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.now_s += seconds

    def clock(self) -> float:
        """The time that has passed."""
        return self.now_s


def impatient(
    waits: Waits | None = None, *, ca_file: Path | None = None, patience: Patience | None = None
) -> Dial:
    """A dial that never sleeps."""
    waits = Waits() if waits is None else waits
    return Dial(
        pause=waits.pause,
        clock=waits.clock,
        ca_file=ca_file,
        patience=Patience(step_s=5.0) if patience is None else patience,
    )


@contextlib.contextmanager
def serving_pcs(pcs: FakePcs, *, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[FakePcs]:
    """Serve on a loopback socket for the time of the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = pcs.answer(self.path)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            length = len(answer.body) if answer.claimed_bytes is None else answer.claimed_bytes
            self.send_header("content-length", str(length))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Stay silent."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is no error."""

    server = Server(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    pcs.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield pcs
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
