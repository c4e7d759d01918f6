# SPDX-License-Identifier: Apache-2.0
"""The host keeps what it serves fresh, by a program that it starts and does not load."""

import asyncio
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_pcs import Answer, FakePcs, serving_pcs
from memory_appliance import MemoryAppliance, pki

from adyton.edge import wall_clock_s
from adyton_attestation.simulation.collateral import EndorsementSpec
from adyton_attestation.sources.vetting import vet
from adyton_host.endorsements import EndorsementRefresher, Refreshed, RefreshSettings
from adyton_host.metrics import Metrics

DAY_S = 86_400


@pytest.fixture
def pcs() -> Iterator[FakePcs]:
    """A caching service."""
    fake = FakePcs(pki=pki(), spec=EndorsementSpec(issued_s=wall_clock_s() - DAY_S), style="pccs")
    with serving_pcs(fake) as served:
        yield served


def settings(pcs: FakePcs, directory: Path, **changes) -> RefreshSettings:
    """Everything below one directory."""
    root = directory / "root.pem"
    root.write_text(pki().root.pem())
    members = {
        "out": directory / "served" / "endorsements.json",
        "cache": directory / "cache",
        "source": f"pccs={pcs.url}",
        "root": root,
    }
    return RefreshSettings(**members | changes)


async def report() -> bytes | None:
    """What an enclave of that platform answers."""
    return MemoryAppliance().report("ab" * 32)


async def test_what_is_served_is_fetched_for_the_platform_of_the_enclave(
    pcs: FakePcs, tmp_path: Path
) -> None:
    """The program gets the report and replaces the file; the host learns the outcome and the end, no more."""
    metrics, chosen = Metrics(), settings(pcs, tmp_path)
    told: list[tuple[Refreshed, int | None]] = []
    refresher = EndorsementRefresher(chosen, report, on_refreshed=lambda *outcome: told.append(outcome))
    assert await refresher.refresh() is Refreshed.FRESH
    served = vet(chosen.out.read_bytes(), pcs.anchor, pcs.family())
    assert told == [(Refreshed.FRESH, served.first_to_expire.last_s)]
    metrics.endorsements_refreshed(*told[0])
    assert b'adyton_host_endorsement_refreshes_total{refreshed="fresh"} 1.0' in metrics.exposition()
    assert list(chosen.out.parent.iterdir()) == [chosen.out]


async def test_an_outage_leaves_the_file_and_is_told(pcs: FakePcs, tmp_path: Path) -> None:
    """What was fetched before is served on; without anything before, there is no file."""
    chosen = settings(pcs, tmp_path)
    refresher = EndorsementRefresher(chosen, report)
    assert await refresher.refresh() is Refreshed.FRESH
    before = json.loads(chosen.out.read_bytes())
    pcs.bend = lambda _last, _answer: Answer(status=400)
    assert await refresher.refresh() is Refreshed.KEPT
    assert json.loads(chosen.out.read_bytes()) == before
    nowhere = settings(pcs, tmp_path, out=tmp_path / "none.json", cache=tmp_path / "empty")
    assert await EndorsementRefresher(nowhere, report).refresh() is Refreshed.UNAVAILABLE
    assert not nowhere.out.exists()


async def test_unusable_settings_and_reports_are_told_from_an_outage(pcs: FakePcs, tmp_path: Path) -> None:
    """A wrong CA file or address, a report that is none: the operator's to mend."""
    for changes in ({"source_ca": tmp_path / "missing.pem"}, {"source": "pccs=http://pccs.example"}):
        chosen = settings(pcs, tmp_path, **changes)
        assert await EndorsementRefresher(chosen, report).refresh() is Refreshed.UNUSABLE

    async def nonsense() -> bytes:
        return b"{}"

    assert await EndorsementRefresher(settings(pcs, tmp_path), nonsense).refresh() is Refreshed.UNUSABLE


async def test_a_program_that_hangs_is_ended(pcs: FakePcs, tmp_path: Path) -> None:
    """The limit on its time holds, and the process is gone afterwards."""
    chosen = settings(pcs, tmp_path, timeout_s=0.0)
    assert await EndorsementRefresher(chosen, report).refresh() is Refreshed.FAILED


async def test_pauses_follow_the_outcome(pcs: FakePcs, tmp_path: Path) -> None:
    """Short while no enclave attests, long after success, in between after a failure."""
    pauses: list[float] = []
    reports = [await report(), await report(), None]

    async def next_report() -> bytes | None:
        if len(reports) == 1:
            pcs.bend = lambda _last, _answer: Answer(status=400)
        return reports.pop() if reports else await report()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    chosen = settings(pcs, tmp_path, poll_s=1.0, interval_s=100.0, retry_s=10.0)
    with pytest.raises(asyncio.CancelledError):
        await EndorsementRefresher(chosen, next_report, pause=pause).run()
    assert pauses == [1.0, 100.0, 10.0]


async def test_the_served_file_is_public_and_the_program_gets_a_clean_environment(
    pcs: FakePcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the host's environment is not used: where to ask is what was configured."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    chosen = settings(pcs, tmp_path)
    assert await EndorsementRefresher(chosen, report).refresh() is Refreshed.FRESH
    assert stat.S_IMODE(chosen.out.stat().st_mode) == 0o644
