# SPDX-License-Identifier: Apache-2.0
"""Sources behind a cache: what is kept, what replaces it, and what happens when the source is away."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_pcs import Answer, FakePcs, serving_pcs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adyton_attestation.certificates import TrustAnchor, trust_anchor
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import create_pki
from adyton_attestation.sources.cache import EndorsementCache, Kept
from adyton_attestation.sources.choice import FileSource, read_anchor
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.pcs import Channel
from adyton_attestation.sources.supply import REFETCH_AFTER_S, EndorsementSupply
from adyton_attestation.sources.vetting import vet
from adyton_protocol.errors import (
    ConfigError,
    EndorsementError,
    EndorsementsNotPublished,
    EndorsementSourceError,
    EndorsementsUnavailable,
)

DAY_S = 86_400
AWAY = Answer(status=503)


@dataclasses.dataclass
class Bench:
    """A service, a cache, and what lives from both."""

    pcs: FakePcs
    cache: EndorsementCache
    anchor: TrustAnchor
    now_s: int

    @property
    def family(self) -> PlatformFamily:
        return self.pcs.family()

    def supply(self, **changes) -> EndorsementSupply:
        return EndorsementSupply(self.pcs.service(), self.anchor, self.cache, **changes)

    def obtain(self, after_s: int = 0):
        """Ask some time later."""
        return self.supply().obtain(self.family, self.now_s + after_s)

    def away(self) -> None:
        """Take the service away."""
        self.pcs.bend = lambda _last, _answer: AWAY

    def says(self, **changes) -> None:
        """Have it say something else from now on."""
        self.pcs.spec = dataclasses.replace(self.pcs.spec, **changes)


@pytest.fixture
def bench(lab, tmp_path) -> Iterator[Bench]:
    """Everything genuine and there."""
    pcs = FakePcs(pki=lab.pki, spec=EndorsementSpec(issued_s=lab.now_s - 3600))
    with serving_pcs(pcs):
        yield Bench(pcs, EndorsementCache(tmp_path / "cache", pcs.anchor), pcs.anchor, lab.now_s)


# --- Vetting ------------------------------------------------------------------------------------------


def test_forged_parts_are_not_endorsements(lab):
    """Each document, each list and the chain of each must be signed below the pinned root."""
    good = json.loads(lab.collateral())
    other = json.loads(build_endorsements(create_pki(lab.now_s), EndorsementSpec(issued_s=lab.now_s - 3600)))
    anchor = trust_anchor(lab.pki.root.der())
    vet(json.dumps(good).encode(), anchor)
    for part in good:
        if good[part] != other[part]:
            with pytest.raises(EndorsementError):
                vet(json.dumps(good | {part: other[part]}).encode(), anchor)
    with pytest.raises(EndorsementError):
        vet(json.dumps(other).encode(), anchor)


def test_a_platforms_key_makes_no_endorsements(lab):
    """The roles below the root are kept apart here as in an appraisal."""
    chain = lab.pki.pck.pem() + lab.pki.root.pem()
    forged = build_endorsements(
        lab.pki, EndorsementSpec(issued_s=lab.now_s - 3600), tcb_signer=(lab.pki.pck, chain)
    )
    with pytest.raises(EndorsementError, match="TCB Signing"):
        vet(forged, trust_anchor(lab.pki.root.der()))


def test_endorsements_of_two_tees_do_not_mix(lab):
    """TCB info of one TEE with the quoting enclave of the other is refused."""
    sgx, tdx = json.loads(lab.collateral()), json.loads(lab.collateral(tee="tdx"))
    mixed = sgx | {name: value for name, value in tdx.items() if name.startswith("qe_identity")}
    with pytest.raises(EndorsementError, match="another TEE"):
        vet(json.dumps(mixed).encode(), trust_anchor(lab.pki.root.der()))


# --- Supply -------------------------------------------------------------------------------------------


def test_a_set_is_fetched_once_a_day(bench):
    """Within a day the cache answers by itself; afterwards the source is asked again."""
    assert bench.obtain().fresh
    asked = len(bench.pcs.asked)
    again = bench.obtain(REFETCH_AFTER_S - 1)
    assert not again.fresh
    assert again.notice is None
    assert len(bench.pcs.asked) == asked
    assert bench.obtain(REFETCH_AFTER_S).fresh


def test_a_clock_that_was_ahead_does_not_stop_the_asking(bench):
    """A set fetched in the future is not taken for a young one."""
    bench.obtain(DAY_S)
    assert bench.obtain().fresh


def test_another_channel_is_another_set(bench):
    """What was fetched as one channel does not answer for another."""
    bench.obtain()
    supply = EndorsementSupply(bench.pcs.service(channel=Channel(update="early")), bench.anchor, bench.cache)
    assert supply.obtain(bench.family, bench.now_s).fresh


def test_an_outage_is_lived_through_and_said(bench):
    """While the source is away, what is kept serves for as long as it holds, with a notice; then it is an error."""
    bench.obtain()
    bench.away()
    supplied = bench.obtain(2 * DAY_S)
    assert not supplied.fresh
    assert "status 503" in supplied.notice
    assert "holds until 2026-10-21" in supplied.notice
    end_s = supplied.kept.vetted.first_to_expire.last_s
    assert bench.obtain(end_s - bench.now_s).notice is not None
    with pytest.raises(EndorsementsUnavailable, match="have run out") as caught:
        bench.obtain(end_s - bench.now_s + 1)
    assert caught.value.code == "endorsements-unavailable"


def test_an_outage_at_the_first_time_is_an_error_that_says_nothing_of_the_platform(bench):
    """Unavailability is no attestation error, and its class says so."""
    bench.away()
    with pytest.raises(EndorsementsUnavailable) as caught:
        bench.obtain()
    assert not isinstance(caught.value, EndorsementError)
    assert caught.value.retry_safe


def test_forged_endorsements_replace_nothing(bench):
    """A source that serves somebody else's documents is at fault; what is kept stays and serves."""
    before = json.loads(bench.obtain().data)
    bench.pcs.pki = dataclasses.replace(create_pki(bench.now_s), platform=bench.pcs.pki.platform)
    supplied = bench.obtain(2 * DAY_S)
    assert json.loads(supplied.data) == before
    assert "pinned root" in supplied.notice
    assert json.loads(bench.cache.load(bench.family).vetted.data) == before


def test_expired_endorsements_are_the_sources_fault(bench):
    """A caching service that was forgotten serves a set that has run out: said as that, not as a bad platform."""
    bench.says(issued_s=bench.now_s - 40 * DAY_S)
    with pytest.raises(EndorsementSourceError, match="do not hold at"):
        bench.obtain()


def test_endorsements_of_another_family_are_the_sources_fault(bench):
    """The TCB info must be about the FMSPC that was asked for."""
    bench.says(fmspc=bytes.fromhex("00906ed50000"))
    with pytest.raises(EndorsementSourceError, match="instead of sgx-ad7705ffffff-platform"):
        bench.obtain()


@pytest.mark.parametrize(
    "older", [{"evaluation_number": 20}, {"qe_evaluation_number": 20}, {"crl_number": 6}]
)
def test_the_cache_does_not_go_back(bench, older):
    """A source that serves an older set than before, by any of its numbers, does not make the cache forget."""
    bench.says(evaluation_number=21, qe_evaluation_number=21, crl_number=7)
    before = bench.obtain().kept.vetted.numbers
    bench.says(**older)
    supplied = bench.obtain(2 * DAY_S)
    assert supplied.kept.vetted.numbers == before
    assert "older" in supplied.notice


def test_without_a_cache_every_question_is_asked(bench):
    """Nothing is kept, and an outage is an error at once."""
    supply = EndorsementSupply(bench.pcs.service(), bench.anchor)
    assert supply.obtain(bench.family, bench.now_s).fresh
    assert supply.obtain(bench.family, bench.now_s).fresh
    bench.away()
    with pytest.raises(EndorsementsUnavailable):
        supply.obtain(bench.family, bench.now_s)


def test_the_cache_alone_is_a_source(bench):
    """Without any source, what was fetched or imported serves until it has run out."""
    alone = EndorsementSupply(None, bench.anchor, bench.cache)
    with pytest.raises(EndorsementsNotPublished, match="holds nothing"):
        alone.obtain(bench.family, bench.now_s)
    fetched = bench.obtain()
    later = alone.obtain(bench.family, bench.now_s + 5 * DAY_S)
    assert json.loads(later.data) == json.loads(fetched.data)
    with pytest.raises(EndorsementsUnavailable, match="have run out"):
        alone.obtain(bench.family, bench.now_s + 40 * DAY_S)


def test_a_quote_is_all_that_is_needed(bench, lab):
    """From a quote to endorsements under which it is accepted."""
    supplied = bench.supply().for_quote(lab.quote(), bench.now_s)
    assert supplied.origin == "the service, now"
    assert lab.appraise(endorsements=supplied.kept.vetted.endorsements).claims.status == "UpToDate"


# --- The cache on disk --------------------------------------------------------------------------------


def test_a_kept_set_reads_back_whole(bench):
    """Everything about it, by family; the directory lists it."""
    fetched = bench.obtain().kept
    kept = bench.cache.load(bench.family)
    assert json.loads(kept.vetted.data) == json.loads(fetched.vetted.data)
    assert kept == dataclasses.replace(
        fetched, vetted=dataclasses.replace(fetched.vetted, data=kept.vetted.data)
    )
    assert [kept.vetted.family for kept in bench.cache.all()] == [bench.family]
    assert bench.cache.load(dataclasses.replace(bench.family, tee="tdx")) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_an_absent_one(bench, data):
    """Cut or changed anywhere, a file is read as what it was, or not at all, and never crashes."""
    bench.cache.store(_kept(bench))
    path = bench.cache.directory / f"{bench.family.label}.json"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 2))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    kept = bench.cache.load(bench.family)
    assert kept is None or kept.vetted.endorsements.tcb_info == _kept(bench).vetted.endorsements.tcb_info


_KEPT: list[Kept] = []


def _kept(bench) -> Kept:
    if not _KEPT:
        vetted = vet(bench.pcs.service().fetch(bench.family), bench.anchor)
        _KEPT.append(Kept(vetted=vetted, source="x", channel="standard", fetched_s=bench.now_s))
    return _KEPT[0]


def test_files_that_are_none_are_passed_over(bench):
    """Whatever else lies in the directory, and a directory that is not there."""
    assert list(bench.cache.all()) == []
    bench.obtain()
    (bench.cache.directory / "notes.txt").write_text("mine")
    (bench.cache.directory / "sgx-00906ed50000-platform.json").write_text("{}")
    assert len(list(bench.cache.all())) == 1


def test_a_set_under_anothers_name_is_not_taken(bench):
    """A file is read for the family that its name says, and must be about it."""
    bench.obtain()
    other = dataclasses.replace(bench.family, fmspc=bytes(6))
    path = bench.cache.directory / f"{bench.family.label}.json"
    path.rename(bench.cache.directory / f"{other.label}.json")
    assert bench.cache.load(other) is None


def test_a_cache_that_cannot_be_written_is_the_operators_fault(bench):
    """And says which file."""
    bench.cache.directory.parent.joinpath("cache").write_text("a file in its place")
    with pytest.raises(ConfigError, match="cannot be written"):
        bench.obtain()


def test_a_reader_sees_the_old_file_or_the_new_one(bench):
    """Writing leaves no other file behind."""
    for day in range(3):
        bench.obtain(day * DAY_S)
    assert [path.name for path in bench.cache.directory.iterdir()] == [f"{bench.family.label}.json"]


# --- Files --------------------------------------------------------------------------------------------


def test_a_file_with_one_set_is_a_source(bench, lab, tmp_path):
    """For its family; a missing file is unavailability, one of something else its own fault."""
    path = tmp_path / "set.json"
    supply = EndorsementSupply(FileSource(path, None), bench.anchor)
    with pytest.raises(EndorsementsUnavailable, match="cannot be read"):
        supply.obtain(bench.family, bench.now_s)
    path.write_bytes(carried := lab.collateral())
    assert supply.obtain(bench.family, bench.now_s).data == carried
    with pytest.raises(EndorsementSourceError, match="instead of"):
        supply.obtain(dataclasses.replace(bench.family, ca="processor"), bench.now_s)
    path.write_text("[]")
    with pytest.raises(EndorsementSourceError):
        supply.obtain(bench.family, bench.now_s)


def test_a_root_is_intels_or_one_file_with_one_certificate(lab, tmp_path):
    """Nothing else is a root."""
    assert read_anchor(None).der == INTEL_SGX_ROOT_DER
    pem: Path = tmp_path / "root.pem"
    pem.write_text(lab.pki.root.pem())
    assert read_anchor(pem).der == lab.pki.root.der()
    for wrong in (lab.pki.root.pem() * 2, lab.pki.tcb_signing.pem(), "x"):
        pem.write_text(wrong)
        with pytest.raises(ConfigError):
            read_anchor(pem)
