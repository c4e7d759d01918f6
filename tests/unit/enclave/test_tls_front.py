# SPDX-License-Identifier: Apache-2.0
"""The enclave's end of the second channel: its keys, its certificates, and the API in ordinary HTTP."""

import asyncio
import base64
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from unit.enclave.harness import CHAT, Enclave, FakeEngine, Outer, call

from adyton_attestation.ra_tls import parse_certificate
from adyton_enclave.attester import REPORT_DATA_BYTES
from adyton_enclave.server import make_desk, make_tls_front
from adyton_enclave.tls_front import TlsFront
from adyton_enclave.tls_identity import TlsKey, server_context
from adyton_protocol import media
from adyton_protocol.padding import bucket
from adyton_protocol.ra_tls import claims_report_data, public_key_report_data
from adyton_protocol.receipt import check_exchange, parse_receipt_header, verify_receipt
from adyton_protocol.report import parse_report

OPEN = "ra_tls_port = 8472"
PATH = "/v1/chat/completions"


class QuotingAttester:
    """Gives report data back as its quote, and remembers it."""

    tee_type = "simulated"

    def __init__(self) -> None:
        self.quoted: list[bytes] = []

    def quote(self, report_data: bytes) -> bytes:
        """Quote."""
        self.quoted.append(report_data)
        return b"a quote of a certain length, over " + report_data


def front_of(enclave: Enclave) -> TlsFront:
    """What would answer inside TLS."""
    surroundings = enclave.clock.surroundings()
    desk = make_desk(enclave.configuration, QuotingAttester(), enclave.ring, surroundings)
    return make_tls_front(enclave.configuration, enclave.gateway, enclave.ring, desk, surroundings)


async def post(front: TlsFront, body: object = CHAT, **options: Any) -> Outer:
    """Send a request as the TLS server would hand it over."""
    headers = {"content-type": "application/json", "authorization": "Bearer canary"}
    return await call(front, "POST", PATH, body=[json.dumps(body).encode()], headers=headers, **options)


def secrets_of(outer: Outer) -> tuple[bytes, bytes]:
    """Exchange id and receipt secret."""
    one, two = (base64.urlsafe_b64decode(part + "=") for part in outer.headers["adyton-exchange"].split("."))
    return one, two


async def test_an_answer_has_a_receipt_that_its_headers_open() -> None:
    """What sealing would have derived is drawn for each exchange, and told to the caller alone."""
    enclave = Enclave(OPEN)
    front = front_of(enclave)
    outer, again = await post(front), await post(front)
    assert outer.status == 200
    assert json.loads(outer.body)["choices"][0]["message"]["content"] == "one two three"
    exchange_id, secret = secrets_of(outer)
    assert secrets_of(again) != (exchange_id, secret)
    check_exchange(
        verify_receipt(parse_receipt_header(outer.headers["adyton-receipt"]), enclave.keyset),
        enc=exchange_id,
        receipt_secret=secret,
        request_body=json.dumps(CHAT).encode(),
        response_body=outer.body,
    )
    assert outer.headers["x-aci-keyset-digest"] == enclave.keyset.digest()
    assert outer.headers["cache-control"] == "no-store"


async def test_whole_answers_are_filled_up_and_streams_get_comments() -> None:
    """Profile size shows buckets here too; profile off shows what is there."""
    front = front_of(Enclave(OPEN))
    for question in ("a", "a longer question than before, by some words"):
        outer = await post(front, CHAT | {"messages": [{"role": "user", "content": question}]})
        size = len(outer.body) + sum(len(name) + len(value) + 4 for name, value in outer.headers.items())
        assert size == bucket(size)
    bare = await post(front, CHAT | {"privacy": "off"})
    assert "adyton-padding" not in bare.headers
    streamed = await post(front, CHAT | {"stream": True})
    assert b"data: [DONE]\n\n" in streamed.body
    assert {len(part) % 256 for part in streamed.parts} == {0}


async def test_what_is_refused_is_refused_before_any_work() -> None:
    """Too large, too many, and too slow, each with its problem document."""
    engine = FakeEngine()
    enclave = Enclave(OPEN + "\n[limits]\nmax_request_bytes = 4096\nmax_exchanges = 1", engine=engine)
    front = front_of(enclave)
    large = await call(front, "POST", PATH, body=[bytes(4000), bytes(100)])
    assert (large.status, large.problem()) == (413, media.PROBLEM_TOO_LARGE)
    engine.stepped = True
    running = asyncio.create_task(post(front))
    await engine.submitted.wait()
    busy = await post(front)
    assert (busy.status, busy.problem()) == (503, media.PROBLEM_BUSY)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_hanging_up_stops_the_work() -> None:
    """Nothing is computed for somebody who has gone."""
    engine = FakeEngine()
    engine.stepped = True
    front = front_of(Enclave(OPEN, engine=engine))
    gone = asyncio.Event()
    running = asyncio.create_task(post(front, CHAT | {"stream": True}, hang_up=gone))
    await engine.submitted.wait()
    gone.set()
    await running
    assert engine.generations[0].cancelled


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/nothing", 404),
        ("GET", PATH, 405),
        ("GET", media.GATEWAY_PATH, 404),
    ],
)
async def test_paths_are_those_of_the_api(method: str, path: str, status: int) -> None:
    """There is no gateway inside TLS, and no path for the host's questions."""
    assert (await call(front_of(Enclave(OPEN)), method, path)).status == status


async def test_a_challenge_may_come_through_the_channel_itself() -> None:
    """The same report as outside, with the TLS key in its keyset."""
    enclave = Enclave(OPEN)
    nonce = "ab" * 32
    outer = await call(front_of(enclave), "GET", media.ATTESTATION_PATH, query=f"nonce={nonce}".encode())
    report = parse_report(outer.body)
    assert (report.nonce, report.keyset) == (nonce, enclave.keyset)
    key = enclave.ring.current().tls_key
    assert key is not None
    assert [entry.spki_sha256 for entry in report.keyset.tls_public_keys] == [key.spki_sha256]


def test_keysets_list_this_epochs_key_and_the_last_ones() -> None:
    """Each epoch has a key of its own; without the channel there is none."""
    ring = Enclave(OPEN).ring
    first = ring.current()
    second = ring.rotate()
    third = ring.rotate()
    keys = [epoch.tls_key.spki_sha256 for epoch in (first, second, third) if epoch.tls_key is not None]
    assert len(set(keys)) == 3
    assert [entry.spki_sha256 for entry in third.keyset.tls_public_keys] == [keys[2], keys[1]]
    closed = Enclave().ring.current()
    assert closed.tls_key is None
    assert closed.keyset.tls_public_keys == ()


def test_a_certificate_binds_its_key_and_nothing_that_anybody_chose() -> None:
    """Two quotes, over the hash of the key and over the claims; both extensions; no longer than the keyset."""
    attester, key = QuotingAttester(), TlsKey()
    evidence = parse_certificate(
        key.certificate(attester, made_at_s=1_800_000_000, not_after_s=1_800_000_900)
    )
    assert attester.quoted == [public_key_report_data(key.spki), claims_report_data(key.spki)]
    assert {len(quoted) for quoted in attester.quoted} == {REPORT_DATA_BYTES}
    assert evidence.spki == key.spki
    assert evidence.quote.endswith(claims_report_data(key.spki))
    assert evidence.legacy_quote is not None
    assert evidence.legacy_quote.endswith(public_key_report_data(key.spki))
    assert evidence.in_force == (1_800_000_000 - 300, 1_800_000_900)


class WatchingContext(ssl.SSLContext):
    """Looks at what lies in the file while it lies there."""

    seen: bytes
    password: bytes

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        """Remember, then load."""
        type(self).seen, type(self).password = Path(certfile).read_bytes(), password
        super().load_cert_chain(certfile, keyfile, password)


def test_the_private_key_is_never_in_a_file_in_the_clear(tmp_path: Path) -> None:
    """It passes through a file encrypted, nobody else may read it, and nothing is left."""
    key = TlsKey()
    shown = key.certificate(QuotingAttester(), made_at_s=1_800_000_000, not_after_s=1_800_000_900)
    context = WatchingContext(ssl.PROTOCOL_TLS_SERVER)
    key.install(context, shown, tmp_path / "keys")
    assert list((tmp_path / "keys").iterdir()) == []
    private = context.seen[context.seen.index(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") :]
    assert b"-----BEGIN PRIVATE KEY-----" not in context.seen
    with pytest.raises(TypeError):
        load_pem_private_key(private, password=None)
    assert load_pem_private_key(private, password=context.password)
    assert len(context.password) == 64


def test_the_servers_tls_cannot_be_resumed() -> None:
    """TLS 1.3 only, and no tickets: every connection shows the certificate."""
    context = server_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0
