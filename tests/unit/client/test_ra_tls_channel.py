# SPDX-License-Identifier: Apache-2.0
"""The second channel: who gets a request, and that nobody else gets a byte of one."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from memory_appliance import DONE, URL, WORDS, MemoryAppliance, delta_events, pki, simulation
from tls_peer import (
    Answering,
    Enclave,
    PrivateKey,
    Recorder,
    certificate,
    evidence_over,
    genuine_extensions,
    recording,
    spki_of,
)

from adyton import AsyncClient, Client
from adyton.edge import wall_clock_s
from adyton.ra_tls import UnlistedKey, check_successor
from adyton.receipts import ReceiptRecord
from adyton_attestation.simulation.pki import create_pki
from adyton_protocol import cbor
from adyton_protocol.errors import (
    AppraisalError,
    AttestationError,
    ConfigError,
    LocalProtocolError,
    ReceiptError,
)
from adyton_protocol.keyset import Keyset, TlsKeyEntry
from adyton_protocol.ra_tls import LEGACY_QUOTE_OID, TAGGED_EVIDENCE_OID, public_key_claims
from adyton_protocol.statement import report_data

CANARY = "canary-51b2"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A TLS key."""
    return ec.generate_private_key(ec.SECP256R1())


def sha256_of(key: PrivateKey) -> str:
    """As a keyset lists it."""
    return hashlib.sha256(spki_of(key)).hexdigest()


def listing(appliance: MemoryAppliance, *keys: PrivateKey) -> None:
    """Have the appliance's keyset list these TLS keys."""
    old = appliance.epoch.keyset
    appliance.epoch.keyset = Keyset(
        subject=None,
        not_after=old.not_after,
        receipt_signing_keys=old.receipt_signing_keys,
        e2ee_public_keys=old.e2ee_public_keys,
        tls_public_keys=tuple(TlsKeyEntry(spki_sha256=sha256_of(key)) for key in keys),
        extension=old.extension,
    )


@dataclass
class Setting:
    """A client, an appliance that attests, and a peer that may or may not be its enclave."""

    asynchronous: bool
    appliance: MemoryAppliance
    peer: Recorder
    directory: Path
    key: ec.EllipticCurvePrivateKey
    receipts: tuple[ReceiptRecord, ...] = ()

    def shows(self, key: PrivateKey, extensions: dict[str, bytes], **times: int) -> None:
        """Have the peer show a certificate."""
        self.peer.show(key, certificate(key, extensions, **times), self.directory)

    def answers(self, **changes: Any) -> None:
        """Have the peer, its enclave, answer like this."""
        self.shows(self.key, genuine_extensions(self.key))
        self.peer.answer = Answering(appliance=self.appliance, **changes)

    def ask(self, times: int = 1) -> list[httpx.Response]:
        """Send requests over the second channel."""
        options: dict[str, Any] = {
            "simulation": simulation(), "transport": self.appliance.transport, "clock": self.appliance.clock,
        }  # fmt: skip
        if not self.asynchronous:
            with Client(URL, **options) as client, client.ra_tls(self.peer.url) as http:
                answers = [http.post("/v1/chat/completions", json={"q": CANARY}) for _ in range(times)]
                self.receipts = client.receipts
                return answers

        async def run() -> list[httpx.Response]:
            async with AsyncClient(URL, **options) as client, client.ra_tls(self.peer.url) as http:
                answers = [await http.post("/v1/chat/completions", json={"q": CANARY}) for _ in range(times)]
                self.receipts = client.receipts
                return answers

        return asyncio.run(run())


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    """With a listed key and no certificate yet."""
    appliance, key = MemoryAppliance(), new_key()
    listing(appliance, key)
    with recording() as peer:
        peer.answer = Answering(appliance=appliance)
        yield Setting(request.param, appliance, peer, tmp_path, key)


def test_the_attested_enclave_gets_ordinary_http(setting: Setting) -> None:
    """One connection serves several requests, and each arrives as it was written."""
    setting.shows(setting.key, genuine_extensions(setting.key))
    answers = setting.ask(3)
    assert [answer.text for answer in answers] == ["ok"] * 3
    assert setting.peer.received.count(CANARY.encode()) == 3
    assert setting.peer.received.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert setting.peer.connections == 1


def test_the_tagged_evidence_alone_will_do(setting: Setting) -> None:
    """The legacy extension is for other verifiers; what is not there need not hold."""
    tagged = genuine_extensions(setting.key)[TAGGED_EVIDENCE_OID]
    setting.shows(setting.key, {TAGGED_EVIDENCE_OID: tagged})
    assert setting.ask()[0].text == "ok"


EVENTS = b"".join(delta_events(WORDS))


@pytest.mark.parametrize("streamed", [False, True])
def test_every_answer_leaves_a_checked_receipt_here_too(setting: Setting, *, streamed: bool) -> None:
    """It is kept with its secret and the evidence behind it; of a stream the caller sees events and the end alone."""
    setting.answers(streamed=streamed, body=EVENTS if streamed else b"ok")
    answer = setting.ask(2)[1]
    assert answer.content == (EVENTS + DONE if streamed else b"ok")
    assert [record.receipt for record in setting.receipts][-1] == setting.appliance.last_receipt
    assert len(setting.receipts) == 2
    keyset = setting.receipts[-1].attested.verdict.keyset
    assert keyset.digest() == setting.appliance.epoch.keyset.digest()


UNPROVEN: dict[str, dict[str, Any]] = {
    "no receipt": {"headers": {"adyton-receipt": None}},
    "no exchange": {"headers": {"adyton-exchange": None}},
    "another exchange": {"headers": {"adyton-exchange": f"{'A' * 43}.{'A' * 43}"}},
    "an exchange that is none": {"headers": {"adyton-exchange": "A.A"}},
    "another answer": {"sends": b"no"},
    "another question": {"about": b'{"q":"another"}'},
    "a receipt that is none": {"headers": {"adyton-receipt": "AAAA"}},
    "another part of a stream": {"streamed": True, "body": EVENTS, "sends": b"data: {}\n\n"},
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_an_answer_whose_receipt_does_not_prove_it_is_refused(setting: Setting, name: str) -> None:
    """Missing, or about something else: no answer, and no record of one."""
    setting.answers(**UNPROVEN[name])
    with pytest.raises(ReceiptError):
        setting.ask()
    assert setting.receipts == ()


def test_a_stream_does_not_end_without_its_receipt(setting: Setting) -> None:
    """The caller never sees the end."""
    setting.appliance.with_receipt = False
    setting.answers(streamed=True, body=EVENTS)
    with pytest.raises(ReceiptError, match="without a receipt"):
        setting.ask()


def test_an_answer_signed_after_a_rotation_is_checked_under_the_new_keyset(setting: Setting) -> None:
    """The connection outlives its epoch: the client attests once more, and believes the same enclave alone."""
    setting.answers()
    answering = setting.peer.answer

    def rotated(request: bytes) -> bytes:
        setting.appliance.rotate(forget=False)
        listing(setting.appliance, setting.key)
        return answering(request)

    setting.peer.answer = rotated
    assert setting.ask()[0].text == "ok"
    record = setting.receipts[0]
    assert record.attested.verdict.keyset.digest() == setting.appliance.epoch.keyset.digest()
    assert setting.peer.received.count(CANARY.encode()) == 1


@pytest.mark.parametrize("field", ["mr_enclave", "mr_signer", "ppid"])
def test_keys_of_another_enclave_sign_nothing_here(memory: MemoryAppliance, field: str) -> None:
    """Whoever attests after the rotation must be who was asked, though both would be accepted."""
    with Client(URL, simulation=simulation(), transport=memory.transport) as client:
        before = client.attest()
        memory.rotate()
        client.verify()
        after = client.attest()
    assert after is not before
    assert check_successor(before, after) is after
    verdict = after.verdict
    claims, quote = verdict.claims, verdict.quote
    if field == "ppid":
        claims = replace(claims, ppid=bytes(16))
    else:
        quote = replace(quote, report=replace(quote.report, **{field: bytes([7]) * 32}))
    with pytest.raises(AppraisalError, match="those of another"):
        check_successor(before, replace(after, verdict=replace(verdict, claims=claims, quote=quote)))


OTHER_PKI = Enclave(platform=create_pki(wall_clock_s()))
OTHER_CODE = Enclave(mr_enclave=bytes(32))
Changes = Callable[[Setting], tuple[PrivateKey, dict[str, bytes], dict[str, int]]]


def _stolen(setting: Setting) -> Any:
    return new_key(), genuine_extensions(setting.key), {}


def _claims(make: Callable[[bytes], bytes]) -> Changes:
    def changes(setting: Setting) -> Any:
        claims = make(public_key_claims(spki_of(setting.key)))
        return setting.key, {TAGGED_EVIDENCE_OID: evidence_over(Enclave(), claims)}, {}

    return changes


def _with(**options: Any) -> Changes:
    return lambda setting: (
        setting.key,
        genuine_extensions(setting.key, options.get("enclave")),
        options.get("times", {}),
    )


def _keyset_quote(setting: Setting) -> Any:
    """A quote over this very enclave's keyset, in the place of one over its TLS key."""
    quote = Enclave().quote(report_data(setting.appliance.epoch.keyset.digest(), None))
    claims = public_key_claims(spki_of(setting.key))
    return setting.key, {TAGGED_EVIDENCE_OID: cbor.encode(cbor.Tagged(60_000, [quote, claims]))}, {}


def _legacy(make: Callable[[Setting], bytes]) -> Changes:
    return lambda setting: (
        setting.key,
        genuine_extensions(setting.key) | {LEGACY_QUOTE_OID: make(setting)},
        {},
    )


def _rsa(setting: Setting) -> Any:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key, genuine_extensions(key), {}


REFUSED: dict[str, Changes] = {
    "plain self-signed": lambda setting: (setting.key, {}, {}),
    "in the middle, with the enclave's evidence": _stolen,
    "no claim": _claims(lambda _claims: b"\xa0"),
    "another claim": _claims(lambda _claims: cbor.encode({"nonce": b"x"})),
    "a claim more": _claims(lambda claims: b"\xa2" + claims[1:] + b"\x65nonce\x41x"),
    "the claim twice": _claims(lambda claims: b"\xa2" + claims[1:] + claims[1:]),
    "the claim about another key": _claims(lambda _claims: public_key_claims(spki_of(new_key()))),
    "another enclave": _with(enclave=OTHER_CODE),
    "another root": _with(enclave=OTHER_PKI),
    "expired": _with(times={"from_s": -900, "to_s": -1}),
    "not yet in force": _with(times={"from_s": 60, "to_s": 900}),
    "in force for years": _with(times={"to_s": 10 * 365 * 86_400}),
    "a quote over the keyset": _keyset_quote,
    "legacy quote of another key": _legacy(lambda _setting: genuine_extensions(new_key())[LEGACY_QUOTE_OID]),
    "legacy quote of another enclave": _legacy(
        lambda setting: genuine_extensions(setting.key, OTHER_CODE)[LEGACY_QUOTE_OID]
    ),
    "legacy quote that is none": _legacy(lambda _setting: b"quote"),
    "no evidence but the legacy quote": lambda setting: (
        setting.key, {LEGACY_QUOTE_OID: genuine_extensions(setting.key)[LEGACY_QUOTE_OID]}, {},
    ),
    "an RSA key": _rsa,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_nobody_else_gets_a_byte_of_a_request(setting: Setting, name: str) -> None:
    """The connection is closed at the end of the handshake, whatever the peer shows but its own enclave's evidence."""
    key, extensions, times = REFUSED[name](setting)
    setting.shows(key, extensions, **times)
    with pytest.raises(AttestationError):
        setting.ask()
    assert setting.peer.connections >= 1
    assert bytes(setting.peer.received) == b""


def test_a_genuine_enclave_that_was_not_attested_gets_nothing(setting: Setting) -> None:
    """Its evidence is perfect, and its key is in no keyset that answers a challenge of ours."""
    key = new_key()
    setting.shows(key, genuine_extensions(key))
    with pytest.raises(UnlistedKey):
        setting.ask()
    assert bytes(setting.peer.received) == b""
    attestations = [sent for sent in setting.appliance.sent if sent.path.startswith("/v1/aci/attestation")]
    assert len(attestations) == 2, "it attested once more, in case the keys had been rotated, and no further"


def test_an_unattested_appliance_is_not_even_connected_to(setting: Setting) -> None:
    """Attestation comes first."""
    setting.shows(setting.key, genuine_extensions(setting.key))
    setting.appliance.tee_type = "sgx"
    with pytest.raises(AttestationError):
        setting.ask()
    assert setting.peer.connections == 0


def test_after_a_rotation_the_new_key_is_taken_when_a_new_quote_lists_it(setting: Setting) -> None:
    """The request goes out once, under the appraisal of the new keyset."""
    newer = new_key()
    setting.shows(newer, genuine_extensions(newer))
    answered: list[int] = []

    def intercept(appliance: MemoryAppliance, sent: Any) -> None:
        if sent.path.startswith("/v1/aci/attestation"):
            answered.append(1)
            if len(answered) == 2:
                appliance.rotate()
                listing(appliance, newer, setting.key)

    setting.appliance.intercept = intercept
    assert setting.ask()[0].text == "ok"
    assert setting.peer.received.count(CANARY.encode()) == 1


def test_an_older_tls_is_not_spoken(setting: Setting) -> None:
    """TLS 1.2 would show the certificate in the clear, and could be renegotiated."""
    setting.shows(setting.key, genuine_extensions(setting.key))
    setting.peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError):
        setting.ask()
    assert bytes(setting.peer.received) == b""


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://u@127.0.0.1", "127.0.0.1"])
def test_the_channels_address_is_an_https_address(address: str) -> None:
    """Nothing can be meant for a connection without TLS."""
    with Client(URL, simulation=simulation()) as client, pytest.raises(ConfigError):
        client.ra_tls(address)


def test_requests_for_others_are_not_carried() -> None:
    """A client of the channel talks to the appliance and to nobody else."""
    appliance = MemoryAppliance()
    with (
        Client(URL, simulation=simulation(), transport=appliance.transport) as client,
        client.ra_tls("https://127.0.0.1:1") as http,
        pytest.raises(LocalProtocolError),
    ):
        http.get("https://elsewhere.example/")
    assert appliance.sent == []


def test_the_parts_of_the_setting_are_of_one_pki() -> None:
    """The other root really is another."""
    assert OTHER_PKI.platform.root.der() != pki().root.der()
