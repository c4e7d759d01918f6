# SPDX-License-Identifier: Apache-2.0
"""Clients and endorsements: from the appliance or from a source of one's own, and what their absence means."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from command_line import Run
from fake_pcs import Answer, FakePcs, serving_pcs
from memory_appliance import Face, MemoryAppliance, pki, problem, simulation, write_simulation

from adyton.edge import wall_clock_s
from adyton.endorsements import endorsements_from
from adyton.evidence_of import quote_of_appliance
from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.simulation.collateral import EndorsementSpec
from adyton_attestation.sources.cache import EndorsementCache
from adyton_attestation.sources.supply import EndorsementSupply
from adyton_protocol import media
from adyton_protocol.errors import (
    AttestationError,
    EndorsementsNotPublished,
    EndorsementSourceError,
    EndorsementsUnavailable,
)

DAY_S = 86_400
KEY = PrivateKey(name="courier@example.org", seed=bytes(range(32)))
LABEL = "sgx-ad7705ffffff-platform"


@pytest.fixture
def pcs() -> Iterator[FakePcs]:
    """A caching service with the endorsements of the memory appliance's platform."""
    fake = FakePcs(pki=pki(), spec=EndorsementSpec(issued_s=wall_clock_s() - DAY_S), style="pccs")
    with serving_pcs(fake) as served:
        yield served


def attested(face: Face):
    """The appraisal behind a face's client."""
    found = face.client.attest()
    return asyncio.run(found) if face.asynchronous else found


# --- In code ------------------------------------------------------------------------------------------


def test_a_source_of_ones_own_is_asked_instead_of_the_appliance(
    face: Face, memory: MemoryAppliance, pcs: FakePcs
) -> None:
    """The appliance is not asked for endorsements, and the appraisal takes the source's."""
    supply = endorsements_from(f"pccs={pcs.url}", simulation=simulation())
    face.connect(memory, endorsements=supply).ask()
    assert memory.paths() == [media.ATTESTATION_PATH, media.GATEWAY_PATH]
    assert len(pcs.asked) == 4
    assert attested(face).origin == f"PCCS {pcs.url}, now"


def test_what_a_source_serves_is_appraised_like_anything_else(
    face: Face, memory: MemoryAppliance, pcs: FakePcs
) -> None:
    """Genuine endorsements that call the platform out of date refuse it, with a class of their own."""
    pcs.spec = EndorsementSpec(issued_s=wall_clock_s() - 60, tcb_status="OutOfDate")
    face.connect(memory, endorsements=EndorsementSupply(pcs.service(), pcs.anchor))
    with pytest.raises(AttestationError) as caught:
        face.ask()
    assert not isinstance(caught.value, EndorsementsUnavailable)
    assert memory.gateway_posts == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(status=503), EndorsementsUnavailable),
        (Answer(status=404), EndorsementsNotPublished),
        (Answer(status=302), EndorsementSourceError),
        (Answer(body=b"<html>"), EndorsementSourceError),
    ],
)
def test_what_could_not_be_had_is_no_verdict(
    face: Face, memory: MemoryAppliance, pcs: FakePcs, answer: Answer, kind: type
) -> None:
    """Nothing is appraised and nothing is sent; the error is none about the platform."""
    pcs.bend = lambda _last, _answer: answer
    face.connect(memory, endorsements=EndorsementSupply(pcs.service(), pcs.anchor))
    with pytest.raises(EndorsementsUnavailable) as caught:
        face.ask()
    assert type(caught.value) is kind
    assert not isinstance(caught.value, AttestationError)
    assert memory.paths() == [media.ATTESTATION_PATH]


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_appliance_without_endorsements_is_unavailability_too(
    face: Face, memory: MemoryAppliance, status: int
) -> None:
    """And its advice when to come back is handed on; nothing was sent."""

    def refuse(_appliance: MemoryAppliance, sent) -> httpx.Response | None:
        if sent.path != media.ENDORSEMENTS_PATH:
            return None
        return problem(status, media.PROBLEM_UNAVAILABLE, "none here", **{"retry-after": "60"})

    memory.intercept = refuse
    face.connect(memory)
    with pytest.raises(EndorsementsUnavailable, match="--endorsements pcs") as caught:
        face.ask()
    assert caught.value.source == "the appliance"
    assert caught.value.retry_after_s == (None if status == 500 else 60)
    assert memory.gateway_posts == []


def test_an_outage_is_lived_through_and_told(memory: MemoryAppliance, pcs: FakePcs, tmp_path: Path) -> None:
    """Later clients get what an earlier one fetched, and can say so."""
    choice = f"pccs={pcs.url}"
    first = Face(asynchronous=False).connect(
        memory, endorsements=endorsements_from(choice, simulation=simulation(), cache=tmp_path)
    )
    assert attested(first).notice is None
    pcs.bend = lambda _last, _answer: Answer(status=400)
    later = EndorsementSupply(
        pcs.service(), pcs.anchor, EndorsementCache(tmp_path, pcs.anchor), refetch_after_s=0
    )
    second = Face(asynchronous=False).connect(memory, endorsements=later)
    assert "living from what" in attested(second).notice


def test_the_platform_of_an_appliance_is_read_and_not_appraised(url: str, memory: MemoryAppliance) -> None:
    """One request, of which the quote is returned."""
    assert quote_of_appliance(url)[:2] == b"\x03\x00"
    assert memory.paths() == [media.ATTESTATION_PATH]


# --- On the command line ------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> tuple[str, ...]:
    """Options for a cache and a root of the test's own."""
    write_simulation(tmp_path / "simulation")
    return ("--cache", str(tmp_path / "cache"), "--root", str(tmp_path / "simulation" / "root.pem"))


@pytest.fixture
def fetched(run: Run, pcs: FakePcs, here: tuple[str, ...]) -> tuple[str, ...]:
    """The same, with one set in the cache."""
    assert run("endorsements", "fetch", "--platform", LABEL, "--from", f"pccs={pcs.url}", *here).code == 0
    return here


def test_verify_says_where_endorsements_came_from(run: Run, where: tuple[str, ...], pcs: FakePcs) -> None:
    """In words and as JSON, for the appliance's and for others."""
    assert "endorsements: from the appliance\n" in run("verify", *where).out
    chosen = ("--endorsements", f"pccs={pcs.url}")
    assert f"endorsements: from PCCS {pcs.url}, now\n" in run("verify", *where, *chosen).out
    document = json.loads(run("verify", "--json", *where, *chosen).out)
    assert document["endorsements"] == {"from": f"PCCS {pcs.url}, now", "notice": None}


def test_endorsements_that_could_not_be_had_exit_with_4(
    run: Run, where: tuple[str, ...], pcs: FakePcs, memory: MemoryAppliance
) -> None:
    """Apart from refusal (1) and from an unreachable appliance (3); the text says what is not known."""
    pcs.bend = lambda _last, _answer: Answer(status=404)
    outcome = run("verify", *where, "--endorsements", f"pccs={pcs.url}")
    assert outcome.code == 4
    assert "endorsements-not-published" in outcome.err
    assert "nothing is known about the platform" in outcome.err
    outcome = run("ask", "--json", *where, "--endorsements", f"pccs={pcs.url}", "hello")
    assert (outcome.code, json.loads(outcome.out)["error"]["code"]) == (4, "endorsements-not-published")
    memory.intercept = lambda _, sent: (
        problem(503, media.PROBLEM_UNAVAILABLE, "none") if sent.path == media.ENDORSEMENTS_PATH else None
    )
    assert run("verify", *where).code == 4


def test_refused_endorsements_are_told_from_a_refused_platform(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance
) -> None:
    """Where the endorsements are at fault, another source is named as the way out; not where the platform is."""

    def serve(**changes) -> None:
        data = json.dumps(FakePcs(pki=pki(), spec=EndorsementSpec(**changes)).collateral())
        memory.intercept = lambda _, sent: (
            httpx.Response(200, content=data) if sent.path == media.ENDORSEMENTS_PATH else None
        )

    serve(issued_s=wall_clock_s() - 40 * DAY_S)
    outcome = run("verify", *where)
    assert outcome.code == 1
    assert "Another source" in outcome.out
    for platform in ({"tcb_status": "OutOfDate"}, {"revoked_pck": True}):
        serve(issued_s=wall_clock_s() - 60, **platform)
        outcome = run("verify", *where)
        assert outcome.code == 1
        assert "Another source" not in outcome.out


def test_options_of_a_source_need_a_source(run: Run, where: tuple[str, ...]) -> None:
    """Whoever names a CA or a carrier means something by it."""
    assert run("verify", *where, "--carrier", str(KEY.public)).code == 2
    assert run("verify", *where, "--endorsements", "pccs=http://pccs.example").code == 2
    assert run("verify", *where, "--endorsements", "missing.json").code == 4


@pytest.mark.parametrize("how", ["quote", "url", "platform"])
def test_a_platform_is_named_in_three_ways(
    run: Run, pcs: FakePcs, here: tuple[str, ...], url: str, tmp_path: Path, how: str
) -> None:
    """By a quote, by an appliance, by name; the set is kept, and written out on demand."""
    quote = tmp_path / "quote.bin"
    quote.write_bytes(quote_of_appliance(url))
    named = {"quote": str(quote), "url": url, "platform": LABEL}[how]
    out = tmp_path / "collateral.json"
    fetch = ("endorsements", "fetch", "--from", f"pccs={pcs.url}", "--json", "--out", out, *here)
    outcome = run(*fetch, f"--{how}", named)
    assert outcome.code == 0, outcome.err
    (found,) = json.loads(outcome.out)["sets"]
    assert (found["platform"], found["verdict"], found["fresh"]) == (LABEL, "usable", True)
    assert json.loads(out.read_bytes()).keys() >= {"tcb_info", "pck_crl"}
    verify = (
        "quote",
        "verify",
        "--quote",
        quote,
        "--collateral",
        out,
        "--at",
        wall_clock_s(),
        "--root",
        here[3],
    )
    assert run(*verify).code == 0


def test_a_platform_is_named_without_asking_anybody(
    run: Run, pcs: FakePcs, here: tuple[str, ...], url: str
) -> None:
    """What has to be fetched outside of an air gap can be read inside of it."""
    fetch = ("endorsements", "fetch", "--from", f"pccs={pcs.url}", "--url", url, "--which", *here)
    assert run(*fetch).out == f"{LABEL}\n"
    assert json.loads(run(*fetch, "--json").out) == {"platforms": [LABEL]}
    assert pcs.asked == []


def test_fetch_asks_for_what_was_said(run: Run, pcs: FakePcs, here: tuple[str, ...]) -> None:
    """Channel and number reach the service; contradictions and nonsense do not."""
    fetch = ("endorsements", "fetch", "--from", f"pccs={pcs.url}", *here)
    assert run(*fetch, "--platform", LABEL, "--update", "early").code == 0
    assert run(*fetch, "--platform", LABEL, "--evaluation-number", "20").code == 0
    assert [asked.rpartition("&")[2] for asked in pcs.asked if "fmspc" in asked] == [
        "update=early",
        "tcbEvaluationDataNumber=20",
    ]
    assert run(*fetch).code == 2
    assert run(*fetch, "--platform", LABEL, "--quote", "x").code == 2
    assert run(*fetch, "--platform", LABEL, "--evaluation-number", "0").code == 2
    assert run(*fetch, "--platform", "sgx-000000000000-platform").code == 4
    with pytest.raises(SystemExit):
        run(*fetch, "--platform", "sgx")


def test_an_outage_is_noted_by_fetch(run: Run, pcs: FakePcs, fetched: tuple[str, ...]) -> None:
    """What is kept still serves: success, with a note about the source."""
    pcs.bend = lambda _last, _answer: Answer(status=400)
    outcome = run("endorsements", "fetch", "--platform", LABEL, "--from", f"pccs={pcs.url}", *fetched)
    assert outcome.code == 0
    assert "living from what" in outcome.err


def test_status_shows_what_ends_first(run: Run, fetched: tuple[str, ...]) -> None:
    """Per platform: verdict, age, numbers, every part, and the end; usable is 0."""
    outcome = run("endorsements", "status", *fetched)
    assert outcome.code == 0
    assert LABEL in outcome.out
    assert "the policy's age cap" in outcome.out
    document = json.loads(run("endorsements", "status", "--json", *fetched).out)
    (found,) = document["sets"]
    assert document["max_age_s"] == 14 * DAY_S
    assert (found["evaluation_number"], found["channel"], found["verdict"]) == (20, "standard", "usable")
    assert found["age_s"] == pytest.approx(DAY_S, abs=60)
    assert [part["name"] for part in found["parts"]] == ["tcb_info", "qe_identity", "root_ca_crl", "pck_crl"]


def test_status_of_what_is_not_usable_exits_with_4(
    run: Run, pcs: FakePcs, here: tuple[str, ...], tmp_path: Path
) -> None:
    """Nothing kept, expired, too old, too low a number: each is said, for monitoring to see."""
    assert run("endorsements", "status", *here).code == 4
    path = tmp_path / "set.json"
    for changes, verdict in (
        ({"issued_s": wall_clock_s() - 40 * DAY_S}, "expired"),
        ({"issued_s": wall_clock_s() - 20 * DAY_S}, "too old for the policy"),
        ({"issued_s": wall_clock_s() + DAY_S}, "not yet valid"),
        ({"issued_s": wall_clock_s() - DAY_S, "evaluation_number": 19}, "number too low"),
    ):
        path.write_text(json.dumps(FakePcs(pki=pki(), spec=EndorsementSpec(**changes)).collateral()))
        outcome = run("endorsements", "status", path, "--json", *here)
        assert (outcome.code, json.loads(outcome.out)["sets"][0]["verdict"]) == (4, verdict)
    path.write_text("{}")
    assert run("endorsements", "status", path, *here).code == 4


# --- Over the gap -------------------------------------------------------------------------------------


@pytest.fixture
def bundle(run: Run, fetched: tuple[str, ...], tmp_path: Path) -> Path:
    """What a courier carries: one set and a policy."""
    key, policy, out = tmp_path / "courier.key", tmp_path / "policy.toml", tmp_path / "bundle.json"
    key.write_bytes(KEY.to_file(None, random=bytes(40)))
    key.chmod(0o600)
    policy.write_text("version = 2\n")
    outcome = run("endorsements", "export", "--key", key, "--out", out, "--file", policy, *fetched)
    assert outcome.code == 0, outcome.err
    assert KEY.public.fingerprint in outcome.out
    return out


def beyond(here: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    """The same options on the other side of the gap, where nothing is kept yet."""
    return ("--cache", str(tmp_path / "beyond"), "--root", here[3])


def test_a_bundle_crosses_the_gap(
    run: Run, where: tuple[str, ...], here: tuple[str, ...], bundle: Path, tmp_path: Path
) -> None:
    """Exported, imported, shown, and verified with: no network but the appliance's."""
    there, public = beyond(here, tmp_path), tmp_path / "courier.pub"
    public.write_text(f"{KEY.public}\n")
    taken = run(
        "endorsements", "import", bundle, "--carrier", public, "--files-to", tmp_path / "in", "--json", *there
    )
    assert taken.code == 0
    document = json.loads(taken.out)
    assert document["sets"][0]["taken"]
    assert document["files"] == ["policy.toml"]
    assert (tmp_path / "in" / "policy.toml").read_text() == "version = 2\n"
    shown = json.loads(run("endorsements", "status", "--json", *there).out)["sets"][0]
    assert shown["source"].endswith("(carried by courier@example.org)")
    outcome = run("verify", *where, "--endorsements", bundle, "--carrier", str(KEY.public))
    assert outcome.code == 0
    assert f"endorsements: from file {bundle}" in outcome.out


def test_a_bundle_of_somebody_else_is_not_taken(
    run: Run, where: tuple[str, ...], here: tuple[str, ...], bundle: Path, tmp_path: Path
) -> None:
    """Nor one without a carrier named, nor one that was changed on its way."""
    other = PrivateKey(name="courier@example.org", seed=bytes(32)).public
    there = beyond(here, tmp_path)
    assert run("endorsements", "import", bundle, "--carrier", str(other), *there).code == 4
    assert run("endorsements", "import", bundle, "--carrier", "courier", *there).code == 2
    assert run("verify", *where, "--endorsements", bundle).code == 2
    bundle.write_bytes(bundle.read_bytes().replace(b"standard", b"Standard").replace(b"PCCS", b"PCCs"))
    outcome = run("endorsements", "import", bundle, "--carrier", str(KEY.public), *there)
    assert outcome.code == 4
    assert "changed on its way" in outcome.err
    assert not (tmp_path / "beyond").exists()


def test_an_import_does_not_go_back(run: Run, pcs: FakePcs, fetched: tuple[str, ...], bundle: Path) -> None:
    """What is kept and newer stays."""
    pcs.spec = EndorsementSpec(issued_s=wall_clock_s() - 60, evaluation_number=21)
    assert run("endorsements", "fetch", "--platform", LABEL, "--from", f"pccs={pcs.url}", *fetched).code == 0
    outcome = run("endorsements", "import", bundle, "--carrier", str(KEY.public), *fetched)
    assert outcome.code == 4
    assert "newer" in outcome.out


def test_carried_files_replace_nothing(run: Run, here: tuple[str, ...], bundle: Path, tmp_path: Path) -> None:
    """A file that is there already and differs stays, and the user is asked for another directory."""
    incoming = tmp_path / "in"
    incoming.mkdir()
    (incoming / "policy.toml").write_text("mine")
    taken = ("endorsements", "import", bundle, "--carrier", str(KEY.public), "--files-to", incoming)
    assert run(*taken, *beyond(here, tmp_path)).code == 2
    assert (incoming / "policy.toml").read_text() == "mine"


def test_there_must_be_something_to_export(run: Run, here: tuple[str, ...], tmp_path: Path) -> None:
    """An empty cache, or a platform that is not in it."""
    key = tmp_path / "courier.key"
    key.write_bytes(KEY.to_file(None, random=bytes(40)))
    key.chmod(0o600)
    export = ("endorsements", "export", "--key", key, "--out", tmp_path / "b", *here)
    assert run(*export).code == 2
    assert run(*export, "--platform", LABEL).code == 2
    assert not (tmp_path / "b").exists()
