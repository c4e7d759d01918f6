# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: every parser of the verifier that takes a stranger's bytes, and the appraisals behind them.

A target takes bytes and refuses them with one of our errors, or accepts them. What it accepts must be what is genuine:
:class:`Accepted` is raised for anything else. No other exception may come out, and nothing may take long.
``test_fuzz_targets.py`` runs the targets with Hypothesis in the suite; ``fuzz.py`` runs them under atheris, which
steers by coverage.
"""

import contextlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import releases
import wire_examples

import real_samples
from adyton_attestation.bare_quote import appraise_quote
from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_attestation.policy import RAW_QUOTE_POLICY, AppraisalPolicy
from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.quote import looks_like_quote, parse_quote
from adyton_attestation.release_file import parse_release_file, verify_release_file
from adyton_attestation.release_log import parse_log
from adyton_attestation.release_statement import parse_signed_statement, parse_statement
from adyton_attestation.simulation.quoting import TdReportSpec, build_tdx_quote
from adyton_attestation.sources.bundle import Bundle, CarriedFile, CarriedSet, looks_like_bundle, make_bundle
from adyton_attestation.sources.family import PlatformFamily
from adyton_protocol.cmw_evidence import WrappedEvidence, encode_evidence, parse_evidence
from adyton_protocol.errors import AdytonError
from adyton_protocol.media import CMW_CBOR, CMW_JSON
from adyton_protocol.receipt import check_exchange, parse_receipt, verify_receipt
from adyton_protocol.report import parse_report
from negatives import World, real_case, simulated_world

LIMIT_S: Final = 0.1
"""No target may take longer for one input, in time of the processor."""
VECTORS: Final = Path(__file__).parents[1] / "vectors"
KEY: Final = PrivateKey(name="courier@example.org", seed=bytes(range(32)))
NOW_S: Final = releases.START_S + 10 * releases.DAY_S


class Accepted(AssertionError):
    """Bytes that nobody vouched for were accepted."""


class Hang(AssertionError):
    """An input took too long."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to fuzz.

    Attributes:
        name: Its name.
        run: Takes an input.
        seeds: Inputs to start from, a genuine one first.
        text: Whether inputs are text, so that mutations of text reach further.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]] = field(default=list)
    text: bool = False


def timed(target: Target, data: bytes) -> None:
    """Run a target on an input, and hold that it does not take long; twice more when it did, to spare chance."""
    for last in (False, False, True):
        begun_s = time.thread_time()
        with warnings.catch_warnings(), contextlib.suppress(AdytonError):
            # What cryptography has to say about odd certificates is no crash.
            warnings.simplefilter("ignore")
            target.run(data)
        if time.thread_time() - begun_s <= LIMIT_S:
            return
        if last:
            raise Hang(f"{target.name}: {len(data)} bytes take more than {LIMIT_S} s")


@cache
def world() -> World:
    """One simulated world, made once."""
    return simulated_world()


@cache
def _genuine() -> tuple[Endorsements, bytes]:
    case = world().case
    return case.endorsements(), case.quote


def _appraise_changed_quote(data: bytes) -> None:
    """Genuine endorsements, any quote: only the genuine one passes, with zero bytes after it at most."""
    endorsements, quote = _genuine()
    appraise_quote(
        data, endorsements, RAW_QUOTE_POLICY, now_s=world().case.now_s, root_der=world().case.root_der
    )
    if data[: len(quote)] != quote or any(data[len(quote) :]):
        raise Accepted("a quote that the platform did not make")


def _appraise_changed_collateral(data: bytes) -> None:
    """A genuine quote, any endorsements: only those with the genuine statements pass."""
    genuine, quote = _genuine()
    found = parse_endorsements(data)
    appraise_quote(quote, found, RAW_QUOTE_POLICY, now_s=world().case.now_s, root_der=world().case.root_der)
    same = all(
        (ours.text, ours.signature) == (theirs.text, theirs.signature)
        for ours, theirs in ((genuine.tcb_info, found.tcb_info), (genuine.qe_identity, found.qe_identity))
    ) and all(
        ours.der == theirs.der
        for ours, theirs in ((genuine.root_crl, found.root_crl), (genuine.pck_crl, found.pck_crl))
    )
    if not same:
        raise Accepted("statements that the service did not make")


def _verify_changed_receipt(data: bytes) -> None:
    """Any receipt, verified as a client does: only the genuine one passes."""
    check_exchange(
        verify_receipt(parse_receipt(data), wire_examples.keyset()),
        enc=wire_examples.ENC,
        receipt_secret=wire_examples.SECRET,
        request_body=wire_examples.REQUEST_BODY,
        response_body=wire_examples.RESPONSE_BODY,
    )
    if data != wire_examples.receipt().to_bytes():
        raise Accepted("a receipt that the enclave did not sign")


@cache
def _release_file() -> bytes:
    return releases.as_bytes(releases.keeper(5, 6, 7).export(NOW_S))


@cache
def _released() -> frozenset[bytes]:
    file = parse_release_file(_release_file())
    return frozenset(item.signed.statement.leaf for item in file.releases)


def _verify_changed_release(data: bytes) -> None:
    """Any release file: only statements that were signed and logged are found in force."""
    verified = verify_release_file(parse_release_file(data), releases.terms(), now_s=NOW_S)
    if not {item.leaf for item in verified.in_force()} <= _released():
        raise Accepted("a release that nobody signed")


@cache
def _bundle() -> bytes:
    family = PlatformFamily(tee="sgx", fmspc=bytes.fromhex("ad7705ffffff"), ca="platform")
    data = json.dumps(world().case.collateral).encode()
    carried = CarriedSet(family=family, source="Intel", fetched_s=NOW_S, data=data)
    file = CarriedFile(name="policy.toml", content=b"version = 2\n")
    return make_bundle(KEY, (carried,), (file,), made_s=NOW_S)


def _read_changed_bundle(data: bytes) -> None:
    """Any bundle: one of the genuine carrier is the genuine one."""
    found, genuine = Bundle.parse(data), Bundle.parse(_bundle())
    if found.carrier == genuine.carrier and found != genuine:
        raise Accepted("a bundle that the carrier did not sign")


def _quotes() -> list[bytes]:
    td = TdReportSpec(mr_td=bytes(48), report_data=bytes(64))
    pki = world().keys
    made = [world().case.quote, *(build_tdx_quote(pki, td, version=version) for version in (4, 5))]
    vectors = json.loads((VECTORS / "attestation_quotes.json").read_text())["vectors"]
    return made + [bytes.fromhex(vector["input"]) for vector in vectors]


def _collateral() -> list[bytes]:
    return [json.dumps(world().case.collateral).encode()]


def _policies() -> list[bytes]:
    written = [path.read_bytes() for path in (VECTORS.parents[1] / "manifests" / "policies").glob("*.toml")]
    return [*written, RAW_QUOTE_POLICY.to_toml().encode()]


def _statements() -> list[bytes]:
    return [json.dumps(releases.draft(5).document).encode()]


def _signed_statements() -> list[bytes]:
    return [json.dumps(releases.signed(releases.draft(5)).to_json()).encode()]


def _log() -> list[bytes]:
    log = releases.keeper(5, 6, 7).log
    return [b"".join(log.line(index) for index in range(3))]


def _evidence() -> list[bytes]:
    evidence = WrappedEvidence(report=wire_examples.report())
    return [encode_evidence(evidence, media_type) for media_type in (CMW_JSON, CMW_CBOR)]


def _report() -> list[bytes]:
    exchange: dict[str, Any] = json.loads((VECTORS / "aci_exchange.json").read_text())
    return [json.dumps(exchange["report"]).encode()]


@cache
def real_targets() -> list[Target]:
    """Targets over Intel's bytes: no changed quote of the samples is accepted, at the time of their collateral.

    Raises:
        NotAvailable: The samples cannot be had.
    """
    samples = real_samples.samples()

    def target(name: str) -> Target:
        case = real_case(samples, name)
        endorsements = case.endorsements()
        canonical = case.quote[: parse_quote(case.quote).size_bytes]

        def run(data: bytes) -> None:
            appraise_quote(data, endorsements, now_s=case.now_s)
            if data[: len(canonical)] != canonical or any(data[len(canonical) :]):
                raise Accepted("a quote that Intel's platform did not make")

        return Target(name=f"real-{name}", run=run, seeds=lambda: [case.quote])

    return [target(name) for name in ("tdx_quote", "tdx_quote_td15ex")]


TARGETS: Final = (
    Target(name="quote", run=lambda data: (looks_like_quote(data), parse_quote(data)), seeds=_quotes),
    Target(name="quote-appraised", run=_appraise_changed_quote, seeds=lambda: [world().case.quote]),
    Target(name="collateral", run=parse_endorsements, seeds=_collateral, text=True),
    Target(name="collateral-appraised", run=_appraise_changed_collateral, seeds=_collateral, text=True),
    Target(name="report", run=parse_report, seeds=_report, text=True),
    Target(name="evidence-cmw", run=parse_evidence, seeds=_evidence, text=True),
    Target(
        name="receipt",
        run=_verify_changed_receipt,
        seeds=lambda: [wire_examples.receipt().to_bytes()],
        text=True,
    ),
    Target(name="policy", run=AppraisalPolicy.from_toml, seeds=_policies, text=True),
    Target(
        name="bundle",
        run=lambda data: (looks_like_bundle(data), _read_changed_bundle(data)),
        seeds=lambda: [_bundle()],
        text=True,
    ),
    Target(name="statement", run=parse_statement, seeds=_statements, text=True),
    Target(name="signed-statement", run=parse_signed_statement, seeds=_signed_statements, text=True),
    Target(name="release-file", run=_verify_changed_release, seeds=lambda: [_release_file()], text=True),
    Target(name="release-log", run=parse_log, seeds=_log, text=True),
)
