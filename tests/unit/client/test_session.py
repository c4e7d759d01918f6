# SPDX-License-Identifier: Apache-2.0
"""The session: when to attest, whom several askers share an attestation with, what is remembered."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from memory_appliance import URL, MemoryAppliance, endorsements, problem, simulation

from adyton import AsyncClient, Client
from adyton.marks import MarkFile
from adyton.session import Session, SessionState
from adyton.trust import appraiser_for
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_protocol import media
from adyton_protocol.errors import AttestationError, ConfigError, EndorsementError, MalformedEvidence

NONCE = "ab" * 32


def session_of(memory: MemoryAppliance) -> Session:
    """A session for the memory appliance, attested once."""
    session = Session(appraiser_for(None, simulation()))
    session.accept(
        report=memory.report(NONCE), endorsements=endorsements(), challenge=NONCE, now_s=memory.clock()
    )
    return session


def test_a_session_is_fresh_then_attested_then_expired(memory: MemoryAppliance) -> None:
    """The three states follow evidence and time."""
    now_s = memory.clock()
    fresh = Session(appraiser_for(None, simulation()))
    assert fresh.state(now_s) is SessionState.FRESH
    assert fresh.current(now_s) is None
    session = session_of(memory)
    assert session.state(now_s) is SessionState.ATTESTED
    attested = session.current(now_s)
    assert attested is not None
    assert session.state(attested.expires_at_s - 31) is SessionState.ATTESTED
    assert session.state(attested.expires_at_s - 30) is SessionState.EXPIRED
    assert session.current(attested.expires_at_s) is None


def test_short_lived_keys_are_not_expired_from_the_start() -> None:
    """The margin shrinks with the keys' life."""
    memory = MemoryAppliance(life_s=20)
    session = session_of(memory)
    attested = session.current(memory.clock())
    assert attested is not None
    assert attested.expires_at_s - attested.renew_at_s == 2


def test_refused_evidence_changes_nothing(memory: MemoryAppliance) -> None:
    """A failed appraisal leaves the state as it was."""
    session = session_of(memory)
    before = session.current(memory.clock())
    for report, endorsed in ((b"{}", endorsements()), (memory.report(NONCE), b"{}")):
        with pytest.raises((MalformedEvidence, EndorsementError)):
            session.accept(report=report, endorsements=endorsed, challenge=NONCE, now_s=memory.clock())
    with pytest.raises(AttestationError):
        session.accept(
            report=memory.report(NONCE),
            endorsements=endorsements(),
            challenge="cd" * 32,
            now_s=memory.clock(),
        )
    assert session.current(memory.clock()) is before


def test_only_the_current_appraisal_can_be_expired(memory: MemoryAppliance) -> None:
    """Late complaints about old keys do not throw new ones away."""
    session = session_of(memory)
    old = session.current(memory.clock())
    assert old is not None
    session.expire(old)
    assert session.state(memory.clock()) is SessionState.EXPIRED
    session.accept(
        report=memory.report(NONCE), endorsements=endorsements(), challenge=NONCE, now_s=memory.clock()
    )
    session.expire(old)
    assert session.state(memory.clock()) is SessionState.ATTESTED


def test_threads_share_one_attestation(memory: MemoryAppliance) -> None:
    """Eight threads that start together attest once; after a rotation, once more."""
    client = Client(URL, simulation=simulation(), transport=memory.transport)
    together = threading.Barrier(8)

    def ask(_number: int) -> int:
        together.wait()
        return client.http().get("/v1/models").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {200}
        memory.rotate()
        assert set(pool.map(ask, range(8))) == {200}
    assert memory.paths().count(media.ATTESTATION_PATH) == 2


async def test_tasks_share_one_attestation(memory: MemoryAppliance) -> None:
    """The same for tasks of one event loop."""
    client = AsyncClient(URL, simulation=simulation(), transport=memory.transport)

    async def ask() -> int:
        return (await client.http().get("/v1/models")).status_code

    assert set(await asyncio.gather(*(ask() for _ in range(8)))) == {200}
    memory.rotate()
    assert set(await asyncio.gather(*(ask() for _ in range(8)))) == {200}
    assert memory.paths().count(media.ATTESTATION_PATH) == 2


async def test_a_cancelled_task_leaves_the_client_usable(memory: MemoryAppliance) -> None:
    """Cancelling the attestation of one task neither blocks nor poisons the next."""
    waiting, gate = asyncio.Event(), asyncio.Event()

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            waiting.set()
            await gate.wait()
            return memory.handle(request)

    client = AsyncClient(URL, simulation=simulation(), transport=Slow())
    task = asyncio.create_task(client.verify())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert (await client.http().get("/v1/models")).status_code == 200


def test_a_failed_attestation_is_tried_again_by_the_next_request(memory: MemoryAppliance) -> None:
    """An outage is not remembered."""
    client = Client(URL, simulation=simulation(), transport=memory.transport)
    memory.intercept = lambda _memory, _sent: problem(503, media.PROBLEM_UNAVAILABLE, "starting")
    with pytest.raises(Exception, match="503"):
        client.verify()
    memory.intercept = None
    assert client.http().get("/v1/models").status_code == 200


def test_marks_of_one_appraisal_hold_in_the_next(memory: MemoryAppliance) -> None:
    """Endorsements older than what was accepted before are refused."""
    kept: list[HighWaterMarks] = []
    session = Session(appraiser_for(None, simulation()), keep_marks=kept.append)
    arguments = {
        "report": memory.report(NONCE), "endorsements": endorsements(), "challenge": NONCE, "now_s": memory.clock(),
    }  # fmt: skip
    session.accept(**arguments)
    assert kept[0] != NO_MARKS
    assert len(kept[0].documents) == 4
    for document, number in kept[0].documents:
        ahead = NO_MARKS.raised({document: number + 1})
        with pytest.raises(EndorsementError):
            Session(appraiser_for(None, simulation()), marks=ahead).accept(**arguments)


def test_kept_marks_never_fall(tmp_path: Path) -> None:
    """Whoever writes last, the highest numbers stay; a damaged file is an error."""
    file = MarkFile(tmp_path / "state" / "marks.json")
    assert file.load() == NO_MARKS
    high = HighWaterMarks(documents=(("a", 5), ("b", 1), ("c", 21)))
    low = HighWaterMarks(documents=(("a", 4), ("c", 20), ("d", 4)))
    file.keep(high)
    file.keep(low)
    assert file.load() == HighWaterMarks(documents=(("a", 5), ("b", 1), ("c", 21), ("d", 4)))
    (tmp_path / "state" / "marks.json").write_text("{}")
    with pytest.raises(ConfigError):
        file.load()


def test_a_home_that_cannot_be_written_is_only_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Marks that cannot be kept do not cost the user his appliance."""
    file = MarkFile(tmp_path / ("m" * 252))
    file.keep(HighWaterMarks(documents=(("a", 5),)))
    assert "cannot be kept" in caplog.text
    assert file.load() == NO_MARKS


def test_marks_that_cannot_be_read_are_no_fresh_start(tmp_path: Path) -> None:
    """An unreadable file is an error, not an empty one."""
    with pytest.raises(ConfigError):
        MarkFile(tmp_path).load()
