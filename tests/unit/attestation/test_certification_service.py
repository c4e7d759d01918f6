# SPDX-License-Identifier: Apache-2.0
"""The client of a certification service, over real HTTP to a fake one: what it asks, and what it makes of answers."""

import contextlib
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fake_pcs import Answer, FakePcs, Waits, impatient, serving_pcs
from hypothesis import given
from hypothesis import strategies as st

from adyton_attestation.certificates import MAX_CHAIN_BYTES
from adyton_attestation.endorsements import parse_endorsements
from adyton_attestation.simulation.collateral import EndorsementSpec
from adyton_attestation.simulation.quoting import (
    EnclaveReportSpec,
    TdReportSpec,
    build_sgx_quote,
    build_tdx_quote,
)
from adyton_attestation.sources.choice import SourceOptions, choose_source
from adyton_attestation.sources.decoding import issuer_chain, revocation_list, signed_document
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.fetching import MAX_BODY_BYTES, Dial, Patience, check_url
from adyton_attestation.sources.pcs import CertificationService, Channel, pccs_base_url
from adyton_attestation.sources.vetting import vet
from adyton_protocol.errors import (
    AttestationError,
    ConfigError,
    EndorsementError,
    EndorsementsNotPublished,
    EndorsementSourceError,
    EndorsementsUnavailable,
    MalformedEvidence,
)


@pytest.fixture
def pcs(lab) -> Iterator[FakePcs]:
    """Intel's service, faked."""
    with serving_pcs(FakePcs(pki=lab.pki, spec=EndorsementSpec(issued_s=lab.now_s - 3600))) as served:
        yield served


# --- What a quote needs -------------------------------------------------------------------------------


def test_a_quote_says_what_it_needs(lab):
    """FMSPC and PCK CA come from the PCK certificate, the TEE from the form of the quote."""
    fmspc = lab.pki.platform.fmspc
    assert PlatformFamily.of_quote(lab.quote()) == PlatformFamily(tee="sgx", fmspc=fmspc, ca="platform")
    tdx = build_tdx_quote(lab.pki, TdReportSpec(report_data=bytes(64), mr_td=bytes(48)))
    assert PlatformFamily.of_quote(tdx) == PlatformFamily(tee="tdx", fmspc=fmspc, ca="platform")


def test_a_family_has_one_label(lab):
    """The label is a file name and reads back; nothing else does."""
    family = PlatformFamily.of_quote(lab.quote())
    assert family.label == "sgx-ad7705ffffff-platform"
    assert PlatformFamily.parse(family.label) == family
    for wrong in ("", "sgx-ad7705ffffff", "sgx-AD7705FFFFFF-platform", "sgx-ad7705ffffff-root", "../x"):
        assert PlatformFamily.parse(wrong) is None


def test_a_quote_without_a_readable_chain_needs_something_unknown(lab):
    """A chain without the SGX extension, without the PCK CA, or with another certificate in its place is refused."""
    pki = lab.pki
    report = EnclaveReportSpec(mr_enclave=bytes(32), report_data=bytes(64))
    for chain in (pki.pck_ca.pem() + pki.root.pem(), pki.pck.pem(), pki.pck.pem() + pki.root.pem(), "x"):
        with pytest.raises(EndorsementError):
            PlatformFamily.of_quote(build_sgx_quote(pki, report, chain_pem=chain))
    with pytest.raises(MalformedEvidence):
        PlatformFamily.of_quote(b"no quote")


@given(flips=st.lists(st.tuples(st.integers(1052, 4000), st.integers(1, 255)), min_size=1, max_size=8))
def test_a_damaged_chain_in_a_quote_is_refused_or_read_and_never_a_crash(lab, damaged, flips):
    """Whatever stands in the certificates of a quote, the answer is a family or an error of the tree."""
    quote_bytes = bytearray(damaged)
    for at, change in flips:
        quote_bytes[at % len(quote_bytes)] ^= change
    with contextlib.suppress(AttestationError):
        assert len(PlatformFamily.of_quote(bytes(quote_bytes)).fmspc) == 6


@pytest.fixture(scope="session")
def damaged(lab) -> bytes:
    """A quote to damage."""
    return lab.quote()


# --- What is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["pcs", "pccs"])
@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_four_questions_make_a_set_that_is_genuine(pcs, lab, style, tee):
    """TCB info, QE identity, PCK CRL and root CRL, from either kind of service, for either TEE."""
    pcs.style = style
    vetted = vet(pcs.service().fetch(pcs.family(tee)), pcs.anchor, pcs.family(tee))
    assert vetted.holds_at(lab.now_s)
    root = "/IntelSGXRootCA.der" if style == "pcs" else "/sgx/certification/v4/rootcacrl"
    assert pcs.asked == [
        f"/{tee}/certification/v4/tcb?fmspc=AD7705FFFFFF&update=standard",
        f"/{tee}/certification/v4/qe/identity?update=standard",
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        root,
    ]


def test_the_answer_is_what_an_appraisal_takes(pcs, lab):
    """What was fetched passes the appraisal of a quote of that platform, all checks."""
    endorsements = parse_endorsements(pcs.service().fetch(PlatformFamily.of_quote(lab.quote())))
    assert lab.appraise(endorsements=endorsements).claims.status == "UpToDate"


@pytest.mark.parametrize(
    ("channel", "query"),
    [
        (Channel(), "update=standard"),
        (Channel(update="early"), "update=early"),
        (Channel(evaluation_number=20), "tcbEvaluationDataNumber=20"),
        (Channel(update="early", evaluation_number=20), "tcbEvaluationDataNumber=20"),
    ],
)
def test_a_channel_is_asked_for_by_its_own_parameter(pcs, channel, query):
    """``update`` and ``tcbEvaluationDataNumber`` exclude one another; TCB info and QE identity get the same."""
    pcs.service(channel=channel).fetch(pcs.family())
    assert [target.rpartition("?")[2] for target in pcs.asked[:2]] == [f"fmspc=AD7705FFFFFF&{query}", query]


def test_an_evaluation_number_has_a_range():
    """Zero and what does not fit into 32 bits are refused."""
    for wrong in (0, -1, 2**32):
        with pytest.raises(ConfigError):
            Channel(evaluation_number=wrong)


def test_a_caching_service_may_be_named_as_its_neighbours_name_it():
    """The address of ``sgx_default_qcnl.conf`` works as it stands there."""
    for url in ("https://pccs:8081", "https://pccs:8081/", "https://pccs:8081/sgx/certification/v4/"):
        assert pccs_base_url(url) == "https://pccs:8081"


def test_addresses_are_encrypted_unless_they_lead_nowhere():
    """Plain HTTP is for loopback; credentials, queries and other schemes are refused."""
    for fine in (
        "https://pccs.example:8081",
        "http://127.0.0.1:1",
        "http://localhost:8081",
        "http://[::1]:1",
    ):
        check_url(fine)
    for wrong in (
        "http://pccs.example", "ftp://localhost", "https://", "https://me:word@pccs.example",
        "https://pccs.example/?x=1", "https://pccs.example/#x", "pccs.example", "http://[", "http://localhost.example",
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            check_url(wrong)


def test_a_source_is_chosen_in_words():
    """``pcs`` is Intel's, ``pccs=`` any other, ``cache`` nobody; a bad address is the operator's fault."""
    intel = choose_source("pcs", SourceOptions())
    assert isinstance(intel, CertificationService)
    assert intel.name == "Intel's certification service"
    assert (
        choose_source("pccs=https://pccs.example:8081", SourceOptions()).name
        == "PCCS https://pccs.example:8081"
    )
    assert choose_source("cache", SourceOptions()) is None
    with pytest.raises(ConfigError):
        choose_source("pccs=http://pccs.example:8081", SourceOptions())


# --- What is made of answers --------------------------------------------------------------------------


def bending(part: str, change: Callable[[Answer], Answer]):
    """Replace the answer about one part."""
    return lambda last, answer: change(answer) if last == part else answer


def test_redirects_are_refused_and_not_followed(pcs):
    """Where to ask is the caller's choice; nobody is asked twice, and nobody else."""
    elsewhere = Answer(status=302, headers={"location": f"{pcs.url}/elsewhere"})
    pcs.bend = bending("tcb", lambda _: elsewhere)
    with pytest.raises(EndorsementSourceError, match="redirects"):
        pcs.service().fetch(pcs.family())
    assert len(pcs.asked) == 1


def test_a_giant_answer_is_not_read_to_its_end(pcs):
    """More than the limit is refused, whatever length was stated."""
    pcs.bend = bending("tcb", lambda _: Answer(body=b" " * (MAX_BODY_BYTES + 1)))
    with pytest.raises(EndorsementSourceError, match="larger"):
        pcs.service().fetch(pcs.family())


def test_an_answer_of_the_largest_size_is_read(pcs):
    """The limit itself is still an answer: white space around the document does no harm."""

    def padded(answer: Answer) -> Answer:
        return Answer(headers=answer.headers, body=answer.body.ljust(MAX_BODY_BYTES))

    pcs.bend = bending("tcb", padded)
    vet(pcs.service().fetch(pcs.family()), pcs.anchor)


def test_a_truncated_answer_is_unavailability(pcs):
    """A body that ends before its stated length is asked for again, and then could not be had."""

    def cut(answer: Answer) -> Answer:
        return Answer(headers=answer.headers, body=answer.body[:-10], claimed_bytes=len(answer.body))

    pcs.bend = bending("tcb", cut)
    with pytest.raises(EndorsementsUnavailable, match="connection failed") as caught:
        pcs.service().fetch(pcs.family())
    assert type(caught.value) is EndorsementsUnavailable
    assert len(pcs.asked) == 3


def test_a_document_that_was_cut_short_is_the_sources_fault(pcs):
    """With a length that fits the cut, the JSON does not end, and that is noticed."""
    pcs.bend = bending("identity", lambda answer: Answer(headers=answer.headers, body=answer.body[:-10]))
    with pytest.raises(EndorsementSourceError, match="enclaveIdentity"):
        pcs.service().fetch(pcs.family())


def test_a_compressed_answer_is_refused(pcs):
    """No decompression: a small answer could become a giant one."""
    pcs.bend = bending("tcb", lambda a: Answer(headers=a.headers | {"content-encoding": "gzip"}, body=a.body))
    with pytest.raises(EndorsementSourceError, match="compressed"):
        pcs.service().fetch(pcs.family())


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_published_is_said_so(pcs, status):
    """The service answers and has nothing: the vendor's matter, and asking again does not help."""
    pcs.bend = bending("tcb", lambda _: Answer(status=status))
    with pytest.raises(EndorsementsNotPublished, match="FMSPC AD7705FFFFFF") as caught:
        pcs.service().fetch(pcs.family())
    assert (caught.value.code, caught.value.fault) == ("endorsements-not-published", "vendor")
    assert len(pcs.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 418, 204])
def test_other_refusals_are_not_asked_again(pcs, status):
    """A question that was refused once will be refused again."""
    pcs.bend = bending("tcb", lambda _: Answer(status=status))
    with pytest.raises(EndorsementSourceError, match=f"status {status}"):
        pcs.service().fetch(pcs.family())
    assert len(pcs.asked) == 1


def test_a_service_that_recovers_is_asked_again_after_growing_pauses(pcs):
    """Two failures, then an answer: the pauses double, and nothing sleeps in a test."""
    failures = [Answer(status=503), Answer(status=500)]
    pcs.bend = bending("tcb", lambda answer: failures.pop() if failures else answer)
    waits = Waits()
    vet(pcs.service(impatient(waits)).fetch(pcs.family()), pcs.anchor)
    assert waits.pauses == [0.5, 1.0]


def test_a_service_that_stays_away_is_given_up_and_its_advice_handed_on(pcs):
    """Three attempts; Retry-After is obeyed within bounds and told to the caller."""
    pcs.bend = bending("tcb", lambda _: Answer(status=429, headers={"retry-after": "3600"}))
    waits = Waits()
    with pytest.raises(EndorsementsUnavailable, match="tried 3 times") as caught:
        pcs.service(impatient(waits)).fetch(pcs.family())
    assert caught.value.retry_after_s == 3600
    assert (caught.value.source, caught.value.retry_safe) == ("the service", True)
    assert waits.pauses == [8.0, 8.0]


def test_all_time_together_is_bounded(pcs):
    """When the next pause would end after the limit, it is not begun."""
    pcs.bend = bending("tcb", lambda _: Answer(status=503))
    waits = Waits()
    patience = Patience(attempts=100, total_s=5.0)
    with pytest.raises(EndorsementsUnavailable):
        pcs.service(impatient(waits, patience=patience)).fetch(pcs.family())
    assert sum(waits.pauses) <= 5.0


def test_a_trickle_is_given_up(pcs):
    """The limit on all time holds within a body, too."""
    waits = Waits()

    def slow(answer: Answer) -> Answer:
        waits.now_s += 100
        return answer

    pcs.bend = bending("tcb", slow)
    with pytest.raises(EndorsementsUnavailable, match="no end of the answer"):
        pcs.service(impatient(waits)).fetch(pcs.family())


def test_nobody_there_is_unavailability(lab):
    """A port at which nobody listens."""
    with serving_pcs(FakePcs(pki=lab.pki, spec=EndorsementSpec(issued_s=lab.now_s))) as gone:
        pass
    with pytest.raises(EndorsementsUnavailable, match="connection failed") as caught:
        gone.service().fetch(gone.family())
    assert (caught.value.code, caught.value.fault) == ("endorsements-unavailable", "operator")


@pytest.mark.parametrize("part", ["tcb", "identity", "pckcrl"])
@pytest.mark.parametrize("headers", [{}, "twice", {"bad": "%zz"}, {"bad": "no chain"}, {"bad": "%00"}])
def test_a_chain_that_is_missing_doubled_or_no_chain_is_refused(pcs, part, headers):
    """Each of the three headers must be there once and hold certificates."""

    def change(answer: Answer) -> Answer:
        name = next(name for name in answer.headers if name.endswith("Issuer-Chain"))
        kept = {other: value for other, value in answer.headers.items() if other != name}
        if headers == "twice":
            kept |= {name: answer.headers[name], name.lower(): answer.headers[name]}
        elif headers:
            kept[name] = headers["bad"]
        return Answer(headers=kept, body=answer.body)

    pcs.bend = bending(part, change)
    with pytest.raises(EndorsementSourceError, match="header"):
        pcs.service().fetch(pcs.family())


# --- TLS ----------------------------------------------------------------------------------------------


def _self_signed(directory: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for loopback, as a caching service makes one, and the context that serves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - TLS reads the machine's clock
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_id, critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, key_pem = directory / f"{name}.pem", directory / f"{name}_key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_pem)
    return pem, context


def test_a_caching_service_with_its_own_ca_is_accepted_with_the_file_of_that_ca_alone(lab, tmp_path):
    """TLS is verified: without the file, or with another one, the service is unavailable at once."""
    ca, tls = _self_signed(tmp_path, "pccs")
    other, _ = _self_signed(tmp_path, "other")
    pcs = FakePcs(pki=lab.pki, spec=EndorsementSpec(issued_s=lab.now_s - 60), style="pccs")
    with serving_pcs(pcs, tls=tls):
        vet(pcs.service(impatient(ca_file=ca)).fetch(pcs.family()), pcs.anchor)
        asked = len(pcs.asked)
        for wrong in (None, other):
            waits = Waits()
            with pytest.raises(EndorsementsUnavailable, match="TLS certificate is not accepted"):
                pcs.service(impatient(waits, ca_file=wrong)).fetch(pcs.family())
            assert waits.pauses == []
    assert len(pcs.asked) == asked


def test_an_unusable_ca_file_or_proxy_is_the_operators_fault(pcs, tmp_path):
    """Missing, empty, or no URL."""
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for dial in (Dial(ca_file=tmp_path / "missing.pem"), Dial(ca_file=empty), Dial(proxy="nonsense://x")):
        with pytest.raises(ConfigError):
            pcs.service(dial).fetch(pcs.family())


# --- Parsers ------------------------------------------------------------------------------------------


def headers_of(value: str) -> httpx.Headers:
    """Headers with one chain."""
    return httpx.Headers([(b"TCB-Info-Issuer-Chain", value.encode("latin-1"))])


@given(text=st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=200))
def test_a_header_is_a_chain_or_an_error(text):
    """No header, however odd, is anything else."""
    with pytest.raises(EndorsementError):
        issuer_chain(headers_of(text), "TCB-Info-Issuer-Chain")


@given(data=st.data())
def test_a_damaged_header_is_a_chain_or_an_error(lab, data):
    """One changed character gives another chain of certificates or an error, never anything else."""
    good = quote(lab.pki.tcb_signing.pem() + lab.pki.root.pem())
    at = data.draw(st.integers(0, len(good) - 1))
    bent = good[:at] + data.draw(st.sampled_from("%AZaz09+/=-\n ~")) + good[at + 1 :]
    with contextlib.suppress(EndorsementError):
        assert issuer_chain(headers_of(bent), "TCB-Info-Issuer-Chain").isascii()


def test_a_chain_comes_through_as_it_is(lab):
    """Percent-encoded in full or in part, the text is the same; an older header name serves, too."""
    pem = lab.pki.tcb_signing.pem() + lab.pki.root.pem()
    for encoded in (quote(pem), quote(pem, safe=""), quote(pem, safe=" +/=")):
        assert issuer_chain(headers_of(encoded), "TCB-Info-Issuer-Chain", "Older") == pem
        assert issuer_chain(headers_of(encoded), "Newer", "TCB-Info-Issuer-Chain") == pem


def test_an_endless_header_is_refused():
    """Before anything of it is decoded."""
    with pytest.raises(EndorsementError):
        issuer_chain(headers_of("%41" * (MAX_CHAIN_BYTES + 1)), "TCB-Info-Issuer-Chain")


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    space=st.sampled_from(["", " ", "\n\t"]),
    first=st.booleans(),
)
def test_a_signed_document_is_cut_out_byte_for_byte(document, space, first):
    """Whatever it holds, however it is spaced, before or after its signature."""
    text = json.dumps({"x": document}, ensure_ascii=False, indent=2 if space else None)
    members = [f'"tcbInfo"{space}:{space}{text}{space}', f'{space}"signature":{space}"{"ab" * 64}"']
    body = f"{space}{{{(',' + space).join(members if first else members[::-1])}{space}}}{space}"
    assert signed_document(body.encode(), "tcbInfo") == (text, "ab" * 64)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"{", b'{"tcbInfo":{}}', b'{"signature":"00"}', b"\xff",
        b'{"tcbInfo":{},"signature":"00"}',
        b'{"tcbInfo":[],"signature":"' + b"00" * 64 + b'"}',
        b'{"tcbInfo":{},"signature":"' + b"00" * 64 + b'"} {}',
        b'{"tcbInfo":{},"signature":"' + b"00" * 64 + b'","more":1}',
        b'{"tcbInfo":{},"tcbInfo":{},"signature":"' + b"00" * 64 + b'"}',
        b'{"enclaveIdentity":{},"signature":"' + b"00" * 64 + b'"}',
        b'{"tcbInfo":' + b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_other_envelopes_are_refused(body):
    """Exactly a document and its signature."""
    with pytest.raises(EndorsementError):
        signed_document(body, "tcbInfo")


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]",: tcbInfosgaure0', max_size=60).map(str.encode))
def test_any_bytes_are_a_document_or_an_error(body):
    """The parser never ends in anything else."""
    with pytest.raises(EndorsementError):
        signed_document(body, "tcbInfo")


def test_a_revocation_list_is_read_in_every_encoding_that_services_use(lab):
    """DER, hexadecimal and PEM give the same bytes."""
    der = lab.endorsements().pck_crl.der
    pem = x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
    for body in (der, der.hex().encode(), der.hex().upper().encode() + b"\n", pem):
        assert revocation_list(body, "PCK CRL") == der
    for wrong in (b"", b"zz", b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----", b"\xff\xff"):
        found = b""
        try:
            found = revocation_list(wrong, "PCK CRL")
        except EndorsementError:
            continue
        assert found == b""


@given(body=st.binary(max_size=100))
def test_any_bytes_are_a_revocation_list_or_an_error(body):
    """The decoder never ends in anything else; what it returns is parsed later."""
    with contextlib.suppress(EndorsementError):
        assert isinstance(revocation_list(body, "list"), bytes)
